package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
)

// headerKey carries a request id: such a request may be sent again.
const headerKey = "Idempotency-Key"

// HeaderBuild names the build of a request's sender; a daemon of another build
// answers with its own.
const HeaderBuild = "X-Banger-Build"

// maxReply bounds a JSON reply, in bytes.
const maxReply = 64 << 20

// Options say how to reach a daemon.
type Options struct {
	// Socket is the daemon's Unix socket.
	Socket string
	// Dial replaces dialling Socket. It may be called concurrently.
	Dial func(ctx context.Context) (net.Conn, error)
	// Build identifies the caller's binary; empty sends none.
	Build string
}

// Client talks to one daemon. Its methods may be called concurrently. When the
// daemon goes away without an answer, a request that changes nothing or carries a
// request id is sent once more, by a new connection; no other is.
type Client struct {
	opts        Options
	transport   *http.Transport
	http        *http.Client
	daemonBuild atomic.Pointer[string]
}

// New makes a client; it does not connect. Close frees its connections.
func New(opts Options) *Client {
	c := &Client{opts: opts}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if c.opts.Dial != nil {
				return c.opts.Dial(ctx)
			}
			return DialSocket(ctx, c.opts.Socket)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 16,
	}
	c.http = &http.Client{Transport: c.transport}
	return c
}

// Close frees idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// DaemonBuild is the daemon's build when a reply said that it differs from
// Options.Build, else empty.
func (c *Client) DaemonBuild() string {
	if b := c.daemonBuild.Load(); b != nil {
		return *b
	}
	return ""
}

// DialSocket connects to a daemon's socket. Where nobody listens the error is
// of kind unavailable and NobodyListens tells it from others.
func DialSocket(ctx context.Context, socket string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err == nil {
		return conn, nil
	}
	kind := api.KindUnavailable
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
		kind = api.KindDenied
	}
	return nil, api.Errorf(kind, "cannot reach the daemon: %w", err)
}

// NobodyListens says whether err means that no daemon is there, as against one
// that does not answer or that we may not talk to.
func NobodyListens(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// route builds a URL path from its parts, each escaped.
func route(parts ...string) string {
	path := "/v1"
	for _, p := range parts {
		path += "/" + url.PathEscape(p)
	}
	return path
}

// request makes a request whose body is JSON of body, or what a Reader gives.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Request, error) {
	r, stream := body.(io.Reader)
	if body != nil && !stream {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, api.Errorf(api.KindInternal, "cannot encode request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	u := "http://banger" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, r)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "cannot make request: %w", err)
	}
	switch {
	case stream:
		req.Header.Set("Content-Type", "application/octet-stream")
	case body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	if c.opts.Build != "" {
		req.Header.Set(HeaderBuild, c.opts.Build)
	}
	if create, ok := body.(api.CreateVM); ok && create.RequestID != "" {
		req.Header.Set(headerKey, strconv.Quote(create.RequestID))
	}
	return req, nil
}

// repeatable says whether a request may be sent again although the first one
// may have been carried out: it only looks, it carries a request id, or it asks
// for a state that is then simply there already.
func repeatable(req *http.Request) bool {
	if req.Method == http.MethodGet || req.Header.Get(headerKey) != "" {
		return true
	}
	verb := path.Base(req.URL.Path)
	return strings.HasPrefix(req.URL.Path, "/v1/vms/") && (verb == "start" || verb == "stop" || verb == "kill")
}

// send does a request and turns every reply that is no success into an error.
// The caller closes the body.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil && repeatable(req) && lost(req.Context(), err) {
		again := req.Clone(req.Context())
		if req.GetBody != nil {
			if again.Body, err = req.GetBody(); err != nil {
				return nil, api.Errorf(api.KindInternal, "cannot send the request again: %w", err)
			}
		}
		resp, err = c.http.Do(again)
	}
	if err != nil {
		return nil, transportError(req.Context(), err)
	}
	c.noteBuild(resp)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer resp.Body.Close()
		return nil, replyError(resp)
	}
	return resp, nil
}

// lost says that a request met a daemon on its way out: it was connected to and
// went away without an answer. What changes nothing, or would do so only once, is
// then sent to the next daemon. It waits a moment, for one that is being killed
// may still be connected to.
func lost(ctx context.Context, err error) bool {
	var known *api.Error
	if ctx.Err() != nil || errors.As(err, &known) { // cancelled, or from Dial: nobody was connected to
		return false
	}
	select {
	case <-time.After(20 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) noteBuild(resp *http.Response) {
	if b := resp.Header.Get(HeaderBuild); c.opts.Build != "" && b != "" && b != c.opts.Build {
		c.daemonBuild.Store(&b)
	}
}

// call does a request whose reply is JSON; out may be nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	req, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxReply))
	} else {
		err = json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(out)
	}
	if err != nil {
		if ctx.Err() != nil {
			return contextError(ctx)
		}
		return api.Errorf(api.KindUnavailable, "cannot read the daemon's reply to %s %s: %w", method, path, err)
	}
	return nil
}

// transportError gives a kind to what went wrong below HTTP.
func transportError(ctx context.Context, err error) error {
	var known *api.Error
	if errors.As(err, &known) {
		return known // from Dial: says more than the wrapping
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return api.Errorf(api.KindUnavailable, "cannot talk to the daemon: %w", err)
}

func contextError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.Errorf(api.KindTimeout, "the daemon did not answer in time: %w", ctx.Err())
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return api.AsError(cause)
	}
	return api.Errorf(api.KindCancelled, "cancelled: %w", ctx.Err())
}

// replyError reads the error of a reply that is no success.
func replyError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var reply api.ErrorReply
	if json.Unmarshal(b, &reply) == nil && reply.Error != nil && reply.Error.Message != "" {
		return reply.Error
	}
	kind := api.KindInternal
	switch resp.StatusCode {
	case http.StatusBadRequest:
		kind = api.KindInvalid
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		kind = api.KindUnsupported // a route this daemon does not have
	case http.StatusForbidden:
		kind = api.KindDenied
	case http.StatusTooManyRequests:
		kind = api.KindBusy
	case http.StatusServiceUnavailable:
		kind = api.KindUnavailable
	}
	return api.Errorf(kind, "the daemon answered %s without saying why", resp.Status)
}

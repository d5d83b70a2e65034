package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
)

// Options are the host's part, and what tests change.
type Options struct {
	// Plain says whether a host, with its port if it has one, may be spoken to without TLS. The
	// host's own loopback always may. Nil means no other.
	Plain func(host string) bool
	// Attempts are how often in a row a server is asked that gives nothing new;
	// zero means 5.
	Attempts int
	// Pause is how long to wait before the nth attempt after a failure; nil means
	// a second, and each time twice as long.
	Pause func(n int) time.Duration
	// Silence is how long nothing may come before an attempt is given up; zero
	// means a minute.
	Silence time.Duration
	// Agent is what servers are told.
	Agent string
	// Transport replaces the default transport.
	Transport http.RoundTripper
}

// Client gets files. Its methods may be called from several goroutines.
type Client struct {
	opt  Options
	http *http.Client
}

// maxRedirects is how many redirections are followed.
const maxRedirects = 10

// New makes a client.
func New(opt Options) *Client {
	if opt.Plain == nil {
		opt.Plain = func(string) bool { return false }
	}
	if opt.Attempts == 0 {
		opt.Attempts = 5
	}
	if opt.Pause == nil {
		opt.Pause = func(n int) time.Duration { return time.Second << min(n-1, 4) }
	}
	if opt.Silence == 0 {
		opt.Silence = time.Minute
	}
	if opt.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxResponseHeaderBytes = 64 << 10
		t.DisableCompression = true // sizes and ranges are of the file itself
		opt.Transport = t
	}
	c := &Client{opt: opt}
	c.http = &http.Client{Transport: opt.Transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("more than %d redirections", maxRedirects)
		}
		if r.URL.Scheme == "http" && via[0].URL.Scheme == "https" {
			return errors.New("it leads from https to http")
		}
		_, err := c.Check(r.URL.String())
		return err
	}}
	return c
}

// Check says whether a URL is one that the client would get.
func (c *Client) Check(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http":
		return nil, api.Errorf(api.KindInvalid, "cannot get %.200q: it is no address like https://host/file", raw)
	case u.Scheme == "http" && !loopback(u.Hostname()) && !c.opt.Plain(u.Host):
		return nil, api.Errorf(api.KindDenied, "cannot get %s: plain http is for the loopback only, and for hosts that the configuration names", u.Redacted())
	}
	u.Fragment = ""
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// Bytes gets a small file of at most limit bytes. Tag is what an earlier answer
// gave as newTag; where the file is still that version, body is nil. It is
// tried twice.
func (c *Client) Bytes(ctx context.Context, at, tag string, limit int64) (body []byte, newTag string, err error) {
	u, err := c.Check(at)
	if err != nil {
		return nil, "", err
	}
	for n := 1; ; n++ {
		body, newTag, err = c.bytes(ctx, u, tag, limit)
		if err == nil || n == 2 || !api.AsError(err).Retryable || c.pause(ctx, n, 0) != nil {
			return body, newTag, err
		}
	}
}

func (c *Client) bytes(ctx context.Context, u *url.URL, tag string, limit int64) ([]byte, string, error) {
	header := http.Header{}
	if etag, ok := strings.CutPrefix(tag, "etag "); ok {
		header.Set("If-None-Match", etag)
	} else if at, ok := strings.CutPrefix(tag, "at "); ok {
		header.Set("If-Modified-Since", at)
	}
	a, err := c.ask(ctx, u, header)
	if err != nil {
		return nil, "", err
	}
	defer a.close()
	switch a.resp.StatusCode {
	case http.StatusNotModified:
		if tag != "" {
			return nil, tag, nil
		}
		return nil, "", refused(u, a.resp)
	case http.StatusOK:
	default:
		return nil, "", refused(u, a.resp)
	}
	b, err := io.ReadAll(io.LimitReader(a, limit+1))
	switch {
	case err != nil:
		return nil, "", broken(ctx, u, err)
	case int64(len(b)) > limit:
		return nil, "", tooLarge(u, limit)
	case a.resp.ContentLength >= 0 && a.resp.ContentLength != int64(len(b)):
		return nil, "", broken(ctx, u, io.ErrUnexpectedEOF)
	}
	newTag := ""
	if etag := a.resp.Header.Get("ETag"); etag != "" {
		newTag = "etag " + etag
	} else if at := a.resp.Header.Get("Last-Modified"); at != "" {
		newTag = "at " + at
	}
	return b, newTag, nil
}

// answer is a server's answer whose reading ends when nothing comes for long.
type answer struct {
	resp    *http.Response
	silence time.Duration
	timer   *time.Timer
	cancel  context.CancelCauseFunc
	ctx     context.Context
}

var errSilent = errors.New("nothing came for too long")

// ask sends a request.
func (c *Client) ask(ctx context.Context, u *url.URL, header http.Header) (*answer, error) {
	inner, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.opt.Silence, func() { cancel(errSilent) })
	req, err := http.NewRequestWithContext(inner, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		timer.Stop()
		return nil, err
	}
	req.Header = header
	req.Header.Set("Accept-Encoding", "identity")
	if c.opt.Agent != "" {
		req.Header.Set("User-Agent", c.opt.Agent)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		err = said(inner, err)
		cancel(nil)
		timer.Stop()
		return nil, broken(ctx, u, err)
	}
	return &answer{resp: resp, silence: c.opt.Silence, timer: timer, cancel: cancel, ctx: inner}, nil
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.resp.Body.Read(p)
	if n > 0 {
		a.timer.Reset(a.silence)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = said(a.ctx, err)
	}
	return n, err
}

func (a *answer) close() {
	a.timer.Stop()
	a.cancel(nil)
	_ = a.resp.Body.Close()
}

// said is the reason behind an error that only says that the context ended, and
// what is left of an error once the address is taken off, which is said anyway.
func said(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// lasting says whether asking again would give the same: a server without TLS, or
// with a certificate that is not to be trusted, a name that is none.
func lasting(err error) bool {
	var certificate *tls.CertificateVerificationError
	var name *net.DNSError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &certificate) || errors.As(err, &name) && name.IsNotFound
}

// broken is the error for a line that broke: worth another try, mostly.
func broken(ctx context.Context, u *url.URL, err error) error {
	var known *api.Error
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot get %s: %w", u.Redacted(), context.Cause(ctx))
	case ctx.Err() != nil:
		return api.Errorf(api.KindCancelled, "cannot get %s: %w", u.Redacted(), context.Cause(ctx))
	case errors.As(err, &known):
		return known
	}
	e := api.Errorf(api.KindUnavailable, "cannot get %s: %w", u.Redacted(), err).WithHint("curl -I %s", u.Redacted())
	e.Retryable = !lasting(err)
	return e
}

// refused is the error for an answer that is not the file.
func refused(u *url.URL, r *http.Response) error {
	kind, retry := api.KindUnavailable, false
	switch code := r.StatusCode; {
	case code == http.StatusNotFound, code == http.StatusGone:
		kind = api.KindNotFound
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusProxyAuthRequired:
		kind = api.KindDenied
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		retry = true
	}
	e := api.Errorf(kind, "cannot get %s: the server answered %.100q", u.Redacted(), r.Status).WithHint("curl -I %s", u.Redacted())
	e.Retryable = retry
	return e
}

func tooLarge(u *url.URL, limit int64) error {
	return api.Errorf(api.KindInvalid, "cannot get %s: it has more than %d bytes", u.Redacted(), limit)
}

// maxPause bounds what a server may ask for.
const maxPause = 30 * time.Second

// pause waits before the next attempt, at least as long as the server asked.
func (c *Client) pause(ctx context.Context, n int, asked time.Duration) error {
	timer := time.NewTimer(max(c.opt.Pause(n), min(asked, maxPause)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retryAfter is what an answer asks for, if in seconds.
func retryAfter(r *http.Response) time.Duration {
	s, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || s < 0 || s > 3600 {
		return 0
	}
	return time.Duration(s) * time.Second
}

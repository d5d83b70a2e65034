package guestlink

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// maxReply is the largest reply of the agent, headers included, in bytes.
const maxReply = 256 << 10

// Client speaks to one agent. Its methods may be called from several goroutines;
// each opens a stream of its own and ends with ctx.
type Client struct {
	dial, bulk DialFunc
	// bulkFrom is when the bulk way may be tried again, in Unix nanoseconds,
	// after it did not answer.
	bulkFrom atomic.Int64
}

// NewClient uses dial for streams, and bulk, when not nil, for those that carry
// much data into the guest.
func NewClient(dial, bulk func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{dial: dial, bulk: bulk}
}

// Health asks whether the agent is up and which it is. A guest of another
// protocol generation gives an error of kind unsupported.
func (c *Client) Health(ctx context.Context) (guestapi.Health, error) {
	var h guestapi.Health
	if err := c.call(ctx, http.MethodGet, "health", nil, &h); err != nil {
		return h, err
	}
	if h.Protocol != guestapi.Protocol {
		return h, api.Errorf(api.KindUnsupported, "cannot talk to the guest: its agent speaks protocol %d, not %d", h.Protocol, guestapi.Protocol)
	}
	h.Build, h.BootID = printable(h.Build, 100), printable(h.BootID, 100)
	h.Warnings = printableAll(h.Warnings)
	if h.Init != nil {
		h.Init.Kind, h.Init.State, h.Init.Failed = printable(h.Init.Kind, 100), printable(h.Init.State, 100), printableAll(h.Init.Failed)
	}
	return h, nil
}

// Shutdown ends the guest's processes, cleans its disks and powers it off; it
// returns before the power is off.
func (c *Client) Shutdown(ctx context.Context, s guestapi.Shutdown) (guestapi.ShutdownReply, error) {
	var r guestapi.ShutdownReply
	err := c.call(ctx, http.MethodPost, "shutdown", s, &r)
	r.Warnings = printableAll(r.Warnings)
	return r, err
}

// Sync flushes the guest's file systems.
func (c *Client) Sync(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "sync", nil, nil)
}

// clockSlack is how far the guest's clock may be off before it is moved: that
// makes it jump.
const clockSlack = 20 * time.Millisecond

// SyncTime makes the guest's clock show what ours does. A busy guest answers
// late, and how late its clock was read is not known: within that time the clock
// counts as right, else a right one would jump.
func (c *Client) SyncTime(ctx context.Context) error {
	var ask guestapi.Time
	for range 3 {
		var r guestapi.TimeReply
		begin := time.Now()
		if err := c.call(ctx, http.MethodPost, "time", ask, &r); err != nil {
			return err
		}
		took := time.Since(begin)
		off := time.Unix(0, r.UnixNano).Sub(begin.Add(took / 2))
		if off.Abs() <= clockSlack+took/2 {
			return nil
		}
		ask.AdjustNano = -off.Nanoseconds()
	}
	return nil
}

// Grow enlarges the file system on the disk of that role to the disk's size.
func (c *Client) Grow(ctx context.Context, role string) (guestapi.GrowReply, error) {
	var r guestapi.GrowReply
	return r, c.call(ctx, http.MethodPost, "grow", guestapi.Grow{Role: role}, &r)
}

// Stats asks for the guest's view of itself.
func (c *Client) Stats(ctx context.Context) (guestapi.Stats, error) {
	var s guestapi.Stats
	return s, c.call(ctx, http.MethodGet, "stats", nil, &s)
}

// Close releases what the client holds between calls.
func (c *Client) Close() error { return nil }

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	err := c.roundTrip(ctx, method, path, in, out)
	if err == nil {
		return nil
	}
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	return callError(ctx, "cannot ask the guest for "+path, err)
}

// callError gives err the kind that fits the end of ctx.
func callError(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "%s: the agent does not answer", what)
	case ctx.Err() != nil:
		return api.Errorf(api.KindCancelled, "%s: %w", what, context.Canceled)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return api.Errorf(api.KindUnavailable, "%s: the guest link broke", what)
	}
	return api.Errorf(api.KindUnavailable, "%s: %w", what, err)
}

func (c *Client) roundTrip(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	if _, err := conn.Write(request(method, path, "", body)); err != nil {
		return err
	}
	limited := &io.LimitedReader{R: conn, N: maxReply}
	status, reply, err := readReply(bufio.NewReader(limited))
	if err != nil {
		if limited.N <= 0 {
			return api.Errorf(api.KindGuest, "cannot read the guest's reply: it exceeds %d bytes", maxReply)
		}
		return err
	}
	return decodeReply(status, reply, out)
}

// request is a whole HTTP request, ready for one write.
func request(method, path, upgrade string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s /v1/%s HTTP/1.1\r\nHost: banger\r\n", method, path)
	if upgrade != "" {
		fmt.Fprintf(&b, "Connection: Upgrade\r\nUpgrade: %s\r\n", upgrade)
	} else {
		b.WriteString("Connection: close\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(body))
	b.Write(body)
	return b.Bytes()
}

// readReply reads one reply; what r yields is bounded by the caller.
func readReply(r *bufio.Reader) (status int, body []byte, err error) {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, nil, nil
	}
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func decodeReply(status int, body []byte, out any) error {
	if status < 200 || status > 299 {
		return replyError(status, body)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return api.Errorf(api.KindGuest, "cannot read the guest's reply: %s", printable(err.Error(), 200))
	}
	return nil
}

// replyError turns the agent's error reply into ours. Its text comes from the
// guest: it is shortened and made printable, and its hints are not passed on.
func replyError(status int, body []byte) error {
	var r api.ErrorReply
	if err := json.Unmarshal(body, &r); err != nil || r.Error == nil || r.Error.Message == "" {
		return api.Errorf(api.KindGuest, "cannot ask the guest: its agent answered with status %d", status)
	}
	kind := r.Error.Kind
	if kind.HTTPStatus() == http.StatusInternalServerError {
		kind = api.KindGuest
	}
	return api.Errorf(kind, "%s", printable(r.Error.Message, 1000))
}

// printable keeps at most limit bytes of text from the guest and replaces what
// would move a terminal.
func printable(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

func printableAll(in []string) []string {
	if len(in) > 20 {
		in = in[:20]
	}
	for i, s := range in {
		in[i] = printable(s, 500)
	}
	return in
}

// isTimeout tells a deadline from other failures of a connection.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

package guestlink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

const (
	// bulkPatience is how long the bulk way may take to answer before the
	// ordinary one is used, bulkRest how long it is left alone then.
	bulkPatience = 1500 * time.Millisecond
	bulkRest     = 20 * time.Second
)

// ExecOptions choose how the stream is opened.
type ExecOptions struct {
	// NoBulk keeps the stream off the bulk way.
	NoBulk bool
}

// Exec opens a command's stream and sends the request; ctx bounds that only.
// The stream lives until Close, which, when the command still runs, means for the
// agent that its client is gone.
func (c *Client) Exec(ctx context.Context, req guestapi.ExecRequest, opts ExecOptions) (*ExecStream, error) {
	const what = "cannot run the command in the guest"
	body, err := json.Marshal(req)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "%s: %w", what, err)
	}
	if len(body) > guestapi.MaxFrame {
		return nil, api.Errorf(api.KindInvalid, "%s: its arguments and environment are %d bytes, more than %d", what, len(body), guestapi.MaxFrame)
	}
	if s := c.execBulk(ctx, req, opts, body); s != nil {
		return s, nil
	}
	conn, err := c.dial(ctx)
	if err != nil {
		var known *api.Error
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, callError(ctx, what, err)
	}
	// The request goes behind the upgrade in the same write: no round trip.
	first := appendFrame(request(http.MethodPost, "exec", guestapi.ExecUpgrade, nil), guestapi.ChannelRequest, body)
	s, err := upgrade(ctx, conn, first)
	if err != nil {
		_ = conn.Close()
		var known *api.Error
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, callError(ctx, what, err)
	}
	return s, nil
}

// execBulk tries the bulk way where it is worth it; nil means to go the
// ordinary way. The request is sent only after the agent answered, so that no
// command ever runs twice.
func (c *Client) execBulk(ctx context.Context, req guestapi.ExecRequest, opts ExecOptions, body []byte) *ExecStream {
	if c.bulk == nil || opts.NoBulk || req.NoStdin || req.Detach || req.TTY || time.Now().UnixNano() < c.bulkFrom.Load() {
		return nil
	}
	bctx, cancel := context.WithTimeout(ctx, bulkPatience)
	defer cancel()
	conn, err := c.bulk(bctx)
	if err == nil {
		var s *ExecStream
		if s, err = upgrade(bctx, conn, request(http.MethodPost, "exec", guestapi.ExecUpgrade, nil)); err == nil {
			if err = s.Send(guestapi.ChannelRequest, body); err == nil {
				return s
			}
		}
		_ = conn.Close()
	}
	if ctx.Err() == nil {
		c.bulkFrom.Store(time.Now().Add(bulkRest).UnixNano())
	}
	return nil
}

// upgrade sends first and reads the agent's answer to the upgrade. The caller
// closes conn on an error.
func upgrade(ctx context.Context, conn net.Conn, first []byte) (*ExecStream, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(first); err != nil {
		return nil, err
	}
	// The reply's head is bounded by the reader's buffer plus what the limit
	// adds; the frames behind it are bounded one by one.
	lim := &headLimit{r: conn, left: maxReply}
	br := bufio.NewReaderSize(lim, 32<<10)
	status, reply, err := readReply(br)
	if err != nil {
		return nil, err
	}
	if status != http.StatusSwitchingProtocols {
		if err := decodeReply(status, reply, nil); err != nil {
			return nil, err
		}
		return nil, api.Errorf(api.KindGuest, "cannot run the command in the guest: its agent answered with status %d", status)
	}
	lim.left = -1
	if !stop() {
		return nil, ctx.Err()
	}
	return &ExecStream{conn: conn, r: br}, nil
}

// headLimit bounds what may be read until left is set to -1.
type headLimit struct {
	r    io.Reader
	left int
}

func (h *headLimit) Read(p []byte) (int, error) {
	if h.left < 0 {
		return h.r.Read(p)
	}
	if h.left == 0 {
		return 0, errors.New("the reply is too long")
	}
	if len(p) > h.left {
		p = p[:h.left]
	}
	n, err := h.r.Read(p)
	h.left -= n
	return n, err
}

func appendFrame(b []byte, channel byte, payload []byte) []byte {
	n := len(payload)
	b = append(b, channel, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return append(b, payload...)
}

// ExecStream is one command's stream of frames, see guestapi.
type ExecStream struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte

	mu   sync.Mutex // one frame is one write
	done bool       // the exit frame was received
}

// Recv returns the next frame; the payload is valid until the next call. Only
// one goroutine may call it. After the exit frame comes io.EOF; an end before it
// is an error of kind unavailable, a frame the agent may not send one of kind
// guest.
func (s *ExecStream) Recv() (channel byte, payload []byte, err error) {
	if s.done {
		return 0, nil, io.EOF
	}
	channel, payload, err = guestapi.ReadFrame(s.r, &s.buf)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), isTimeout(err):
		return 0, nil, api.Errorf(api.KindUnavailable, "cannot follow the command: the guest link broke before its end")
	case err != nil:
		return 0, nil, api.Errorf(api.KindGuest, "cannot follow the command: %w", err)
	}
	switch channel {
	case guestapi.ChannelStdout, guestapi.ChannelStderr, guestapi.ChannelStarted:
	case guestapi.ChannelCredit:
		if len(payload) != 4 {
			return 0, nil, api.Errorf(api.KindGuest, "cannot follow the command: a credit of %d bytes", len(payload))
		}
	case guestapi.ChannelExit:
		s.done = true
	default:
		return 0, nil, api.Errorf(api.KindGuest, "cannot follow the command: the agent sent a frame on channel %d", channel)
	}
	return channel, payload, nil
}

// Send sends one frame. It may be called from several goroutines, and waits
// when the guest takes nothing.
func (s *ExecStream) Send(channel byte, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := guestapi.WriteFrame(s.conn, channel, payload); err != nil {
		return api.Errorf(api.KindUnavailable, "cannot send to the command: %w", err)
	}
	return nil
}

// Close ends the stream and waiting calls of Recv and Send.
func (s *ExecStream) Close() error { return s.conn.Close() }

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

const (
	// The first tries follow each other quickly: the agent is about to listen.
	dialFirst = 2 * time.Millisecond
	dialLast  = 50 * time.Millisecond
	// maxGreeting is the longest answer to CONNECT, in bytes.
	maxGreeting = 32
)

// DialGuest opens one stream to the agent: a vsock connection through
// Firecracker's socket. One that comes before the guest has its driver waits
// there; one that comes before the agent listens is closed, and tried again.
func (m *Machine) DialGuest(ctx context.Context) (net.Conn, error) {
	pause := dialFirst
	for {
		if err := m.gate("reach the guest of"); err != nil {
			return nil, err
		}
		conn, err := m.connect(ctx)
		if err == nil {
			return conn, nil
		}
		if gone := m.gate("reach the guest of"); gone != nil {
			return nil, gone
		}
		var known *api.Error
		if errors.As(err, &known) {
			return nil, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-m.done:
		case <-ctx.Done():
			t.Stop()
			return nil, m.dialError(ctx)
		}
		t.Stop()
		pause = min(2*pause, dialLast)
	}
}

func (m *Machine) dialError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.Errorf(api.KindTimeout, "cannot reach the guest of %s: the agent does not answer", m.id)
	}
	return api.Errorf(api.KindCancelled, "cannot reach the guest of %s: %w", m.id, context.Canceled)
}

// connect tries once. An error of the API's kinds is final.
func (m *Machine) connect(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", m.link)
	if err != nil {
		if ctx.Err() != nil {
			return nil, m.dialError(ctx)
		}
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	rest, err := greet(conn)
	switch {
	case !stop(): // the deadline is or will be set
		_ = conn.Close()
		return nil, m.dialError(ctx)
	case err != nil:
		_ = conn.Close()
		return nil, err
	}
	return &linkConn{Conn: conn, rest: rest}, nil
}

// greet asks for the agent's port, in one write as Firecracker wants it, and
// gives what came behind the answer.
func greet(conn net.Conn) (rest []byte, err error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", guestapi.VsockPort); err != nil {
		return nil, err
	}
	b := make([]byte, 0, maxGreeting)
	for {
		n, err := conn.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if rest, done, err := parseGreeting(b); done || err != nil {
			return rest, err
		}
		if err != nil {
			return nil, err
		}
	}
}

// parseGreeting reads OK PORT and a line's end; done says that it was whole.
func parseGreeting(b []byte) (rest []byte, done bool, err error) {
	line, tail, whole := strings.Cut(string(b), "\n")
	if !whole {
		if len(b) >= maxGreeting {
			return nil, false, errors.New("the answer to CONNECT does not end")
		}
		return nil, false, nil
	}
	port, ok := strings.CutPrefix(line, "OK ")
	if _, err := strconv.ParseUint(port, 10, 32); !ok || err != nil {
		return nil, false, fmt.Errorf("the answer to CONNECT is %q", line)
	}
	return []byte(tail), true, nil
}

// linkConn is a stream of which something was read already.
type linkConn struct {
	net.Conn
	rest []byte
}

func (c *linkConn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

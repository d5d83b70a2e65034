package guest

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/bangervm/banger/guestapi"
)

const (
	// maxRemains is how much of an older session is skipped before the stream is
	// given up and opened anew.
	maxRemains = 16 << 20
	// linkWriteTimeout ends a session whose host took nothing for so long.
	linkWriteTimeout = time.Hour
	yamuxHead        = 12
)

// ServeLink answers on one byte stream until it ends: it waits for the host's
// greeting (guestapi.LinkKind), then serves the streams opened in it. It closes
// conn.
func (a *Agent) ServeLink(conn io.ReadWriteCloser) error {
	if err := greet(conn); err != nil {
		_ = conn.Close()
		return err
	}
	session, err := yamux.Server(&linkConn{ReadWriteCloser: conn}, &yamux.Config{
		AcceptBacklog:          256,
		KeepAliveInterval:      time.Hour,
		ConnectionWriteTimeout: linkWriteTimeout,
		MaxStreamWindowSize:    256 << 10,
		StreamCloseTimeout:     0, // a reset would discard what a slow client has not read
		LogOutput:              io.Discard,
	})
	if err != nil {
		_ = conn.Close()
		return err
	}
	defer session.Close()
	return a.Serve(session)
}

// greet is the guest's part of opening a session.
func greet(conn io.ReadWriter) error {
	scan := guestapi.NewLinkScanner(conn, maxRemains)
	var last guestapi.Nonce
	greeted := false
	for {
		kind, nonce, err := scan.Next()
		if err != nil {
			return err
		}
		switch {
		case kind == guestapi.LinkHello:
			last, greeted = nonce, true
			if _, err := conn.Write(guestapi.LinkRecord(guestapi.LinkEcho, nonce)); err != nil {
				return err
			}
		case kind == guestapi.LinkGo && greeted && nonce == last:
			_, err := conn.Write(guestapi.LinkRecord(guestapi.LinkReady, nonce))
			return err
		}
	}
}

// linkConn joins the head of a yamux frame, which yamux writes alone, with the
// beginning of its body: each write to the port is an exit to the VMM.
type linkConn struct {
	io.ReadWriteCloser
	head []byte // of a data frame whose body comes next
	buf  []byte
}

// portChunk is what a virtio-serial port takes in one write, in bytes.
const portChunk = 32 << 10

func (c *linkConn) Write(p []byte) (int, error) {
	if c.head == nil {
		if len(p) == yamuxHead && p[1] == 0 && p[8]|p[9]|p[10]|p[11] != 0 {
			c.head = append(c.buf[:0], p...)
			return len(p), nil
		}
		return c.ReadWriteCloser.Write(p)
	}
	n := min(len(p), portChunk-yamuxHead)
	c.buf = append(c.head, p[:n]...)
	c.head = nil
	if _, err := c.ReadWriteCloser.Write(c.buf); err != nil {
		return 0, err
	}
	if n == len(p) {
		return n, nil
	}
	m, err := c.ReadWriteCloser.Write(p[n:])
	return n + m, err
}

// serveStream serves whatever open gives, one stream after the other, until ctx
// ends. An error of open is retried.
func (a *Agent) serveStream(ctx context.Context, log *slog.Logger, open func(ctx context.Context) (io.ReadWriteCloser, error)) {
	for ctx.Err() == nil {
		conn, err := open(ctx)
		if err == nil {
			err = a.ServeLink(conn)
		}
		log.Debug("guest link ended", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

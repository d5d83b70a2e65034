package guestlink

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// DialFunc opens one connection or stream. The caller closes it.
type DialFunc func(ctx context.Context) (net.Conn, error)

const (
	// The first greetings follow each other quickly: one of them may fall into
	// the time in which the guest opens its port anew.
	helloFirst = 10 * time.Millisecond
	helloLast  = 200 * time.Millisecond
	// maxRemains is how much of an older session may still be in the pipe.
	maxRemains = 16 << 20
	// streamWindow is how much of one stream the guest may send ahead.
	streamWindow = 1 << 20
	// writeTimeout ends a stream whose bytes nobody took for so long. A paused
	// guest takes none, so it is long.
	writeTimeout = time.Hour
)

// Mux opens streams to the agent over one byte stream that lives as long as the
// VM. It connects when the first stream is wanted and again whenever the session
// broke. Its methods may be called from several goroutines.
type Mux struct {
	dial DialFunc
	log  *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // the connecting goroutine and late openers

	mu      sync.Mutex
	session *yamux.Session
	attempt chan struct{} // closed when the connecting goroutine ended; nil when none runs
	waiting int
	lastErr error
	used    bool // there was a session before
	closed  bool
}

// NewMux uses dial for the byte stream. Nothing is connected before Dial.
func NewMux(dial func(ctx context.Context) (net.Conn, error), log *slog.Logger) *Mux {
	m := &Mux{dial: dial, log: log}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Dial opens one stream. It waits, as long as ctx allows, for a guest that is
// not up yet. Closing the returned connection also ends reads that wait.
func (m *Mux) Dial(ctx context.Context) (net.Conn, error) {
	for {
		session, err := m.get(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := m.open(ctx, session)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil || m.ctx.Err() != nil {
			return nil, m.dialError(ctx, err)
		}
		m.drop(session, err)
	}
}

// Close ends the session and all streams and waits for its goroutines.
func (m *Mux) Close() error {
	m.mu.Lock()
	m.closed = true
	session := m.session
	m.session = nil
	m.mu.Unlock()
	m.cancel()
	if session != nil {
		_ = session.Close()
	}
	m.wg.Wait()
	return nil
}

// get gives the session, waiting for the connecting goroutine and starting it
// where there is none.
func (m *Mux) get(ctx context.Context) (*yamux.Session, error) {
	m.mu.Lock()
	m.waiting++
	defer func() { m.waiting--; m.mu.Unlock() }()
	for {
		if m.closed {
			return nil, m.dialError(ctx, net.ErrClosed)
		}
		if m.session != nil && !m.session.IsClosed() {
			return m.session, nil
		}
		if ctx.Err() != nil {
			return nil, m.dialError(ctx, m.lastErr)
		}
		if m.attempt == nil {
			done := make(chan struct{})
			m.attempt = done
			m.wg.Go(func() { defer close(done); m.connect() })
		}
		done := m.attempt
		m.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		m.mu.Lock()
	}
}

// connect tries until it has a session, the Mux is closed, or nobody waits any
// more for one that cannot be had.
func (m *Mux) connect() {
	pause := 10 * time.Millisecond
	for {
		session, err := m.handshake()
		m.mu.Lock()
		m.lastErr = err
		if err == nil && !m.closed {
			m.session, m.used = session, true
		}
		if stop := err == nil || m.closed || m.waiting == 0; stop {
			if err == nil && m.closed {
				_ = session.Close()
			}
			m.attempt = nil
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-m.ctx.Done():
		}
		pause = min(2*pause, 500*time.Millisecond)
	}
}

// handshake connects and greets until the guest answers. See guestapi.LinkKind.
func (m *Mux) handshake() (*yamux.Session, error) {
	conn, err := m.dial(m.ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(m.ctx, func() { _ = conn.Close() })
	defer stop()
	m.mu.Lock()
	again := m.used
	m.mu.Unlock()

	var nonce guestapi.Nonce
	_, _ = rand.Read(nonce[:])
	scan := guestapi.NewLinkScanner(conn, maxRemains)
	expect := func(want guestapi.LinkKind) error {
		for {
			kind, n, err := scan.Next()
			if err != nil {
				return err
			}
			if kind == want && n == nonce {
				return nil
			}
		}
	}
	fail := func(err error) (*yamux.Session, error) {
		_ = conn.Close()
		return nil, err
	}
	every := helloFirst
	for tries := 0; ; tries++ {
		hello := guestapi.LinkRecord(guestapi.LinkHello, nonce)
		if again && tries >= 6 && tries < 16 {
			// The guest may be in the middle of a frame of the older session,
			// which would swallow any number of greetings: fill it up.
			pad := make([]byte, 64<<10)
			for i := range pad {
				pad[i] = 0xff
			}
			hello = append(pad, hello...)
		}
		_ = conn.SetDeadline(time.Now().Add(every))
		every = min(2*every, helloLast)
		if _, err := conn.Write(hello); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fail(err)
		}
		err := expect(guestapi.LinkEcho)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fail(err)
		}
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write(guestapi.LinkRecord(guestapi.LinkGo, nonce)); err != nil {
		return fail(err)
	}
	if err := expect(guestapi.LinkReady); err != nil {
		return fail(err)
	}
	_ = conn.SetDeadline(time.Time{})
	session, err := yamux.Client(newGuard(conn), &yamux.Config{
		AcceptBacklog:          256,
		KeepAliveInterval:      time.Hour,
		ConnectionWriteTimeout: writeTimeout,
		MaxStreamWindowSize:    streamWindow,
		StreamCloseTimeout:     time.Minute,
		LogOutput:              io.Discard,
	})
	if err != nil {
		return fail(err)
	}
	return session, nil
}

// open opens a stream of the session; yamux cannot be interrupted in it, so a
// goroutine does it.
func (m *Mux) open(ctx context.Context, session *yamux.Session) (net.Conn, error) {
	type result struct {
		stream *yamux.Stream
		err    error
	}
	ch := make(chan result, 1)
	m.wg.Go(func() {
		s, err := session.OpenStream()
		ch <- result{s, err}
	})
	select {
	case r := <-ch:
		if r.err != nil {
			return nil, r.err
		}
		return &stream{Stream: r.stream, mux: m}, nil
	case <-ctx.Done():
		m.wg.Go(func() {
			if r := <-ch; r.err == nil {
				_ = r.stream.Close()
			}
		})
		return nil, ctx.Err()
	}
}

func (m *Mux) drop(session *yamux.Session, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == session {
		m.log.Debug("guest link broke", "error", why)
		m.session = nil
		m.wg.Go(func() { _ = session.Close() })
	}
}

func (m *Mux) dialError(ctx context.Context, cause error) error {
	if cause == nil || errors.Is(cause, ctx.Err()) {
		cause = errors.New("the agent does not answer")
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot reach the guest: %w", cause)
	case ctx.Err() != nil:
		return api.Errorf(api.KindCancelled, "cannot reach the guest: %w", context.Canceled)
	}
	return api.Errorf(api.KindUnavailable, "cannot reach the guest: %w", cause)
}

// stream is a yamux stream whose Close also ends waiting reads and never waits
// for a guest that takes nothing.
type stream struct {
	*yamux.Stream
	mux  *Mux
	once sync.Once
}

func (s *stream) Close() error {
	s.once.Do(func() {
		_ = s.SetDeadline(time.Unix(1, 0))
		s.mux.wg.Go(func() { _ = s.Stream.Close() })
	})
	return nil
}

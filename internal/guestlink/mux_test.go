package guestlink_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guest"
	"github.com/bangervm/banger/internal/guestlink"
)

// A host that comes back finds the agent, whatever the older session left in
// the pipe.
func TestMuxReconnects(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	agent := guest.NewAgent(guest.Options{Build: "b"}, log)
	defer agent.Close()
	var conns atomic.Int32
	var last atomic.Pointer[net.Conn]
	mux := guestlink.NewMux(func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		conns.Add(1)
		last.Store(&b)
		go func() {
			// The remains of an older session come first.
			junk := append([]byte("\x00\x01junk"), guestapi.LinkRecord(guestapi.LinkEcho, guestapi.Nonce{1})...)
			if _, err := b.Write(append(junk, "\xbaban"...)); err == nil {
				_ = agent.ServeLink(b)
			}
		}()
		return a, nil
	}, log)
	defer mux.Close()
	c := guestlink.NewClient(mux.Dial, nil)
	for i := range 5 {
		if h, err := c.Health(testContext(t)); err != nil || h.Build != "b" {
			t.Fatalf("%d: %+v, %v", i, h, err)
		}
		_ = (*last.Load()).Close()
	}
	if conns.Load() < 3 {
		t.Errorf("only %d connections", conns.Load())
	}
}

// A guest that is not up yet is waited for, as long as ctx allows.
func TestMuxWaits(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "s")
	mux := guestlink.NewMux(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}, log)
	defer mux.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := mux.Dial(ctx); api.KindOf(err) != api.KindTimeout {
		t.Fatalf("got %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	agent := guest.NewAgent(guest.Options{}, log)
	defer agent.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond) // booting: greetings pile up
		_ = agent.ServeLink(conn)
	}()
	if _, err := guestlink.NewClient(mux.Dial, nil).Health(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := mux.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := mux.Dial(t.Context()); api.KindOf(err) != api.KindUnavailable || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

// A guest that floods the link before greeting, or says nothing, costs only the
// caller's patience.
func TestMuxHostileGuest(t *testing.T) {
	t.Parallel()
	for name, behave := range map[string]func(net.Conn){
		"floods": func(c net.Conn) {
			junk := make([]byte, 1<<16)
			for i := range junk {
				junk[i] = 0xba
			}
			for {
				if _, err := c.Write(junk); err != nil {
					return
				}
			}
		},
		"silent": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"closes": func(c net.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := guestlink.NewMux(func(context.Context) (net.Conn, error) {
				a, b := net.Pipe()
				go behave(b)
				return a, nil
			}, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := mux.Dial(ctx); api.KindOf(err) != api.KindTimeout {
				t.Errorf("got %v", err)
			}
			if err := mux.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

package guestlink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guest"
	"github.com/bangervm/banger/internal/guestlink"
)

// newAgent serves an agent of this process on a Unix socket through the whole
// link: greeting, yamux, HTTP.
func newAgent(t *testing.T, opts guest.Options) *guestlink.Client {
	t.Helper()
	return guestlink.NewClient(newMux(t, opts).Dial, nil)
}

func newMux(t *testing.T, opts guest.Options) *guestlink.Mux {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	agent := guest.NewAgent(opts, log)
	path := filepath.Join(t.TempDir(), "link.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = agent.ServeLink(conn)
		}
	}()
	mux := guestlink.NewMux(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}, log)
	t.Cleanup(func() {
		_ = l.Close()
		if err := mux.Close(); err != nil {
			t.Error(err)
		}
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return mux
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// outcome is all a command said.
type outcome struct {
	stdout, stderr string
	exit           guestapi.Exit
	started        bool
}

// run runs a command to its end, feeding stdin within its credit.
func run(t *testing.T, c *guestlink.Client, req guestapi.ExecRequest, stdin []byte) outcome {
	t.Helper()
	s, err := c.Exec(testContext(t), req, guestlink.ExecOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	credits := make(chan int, 1024)
	if !req.NoStdin {
		go func() {
			room := guestapi.StdinWindow
			for len(stdin) > 0 {
				n := min(len(stdin), guestapi.MaxFrame)
				for room < n {
					c, ok := <-credits
					if !ok {
						return
					}
					room += c
				}
				if s.Send(guestapi.ChannelStdin, stdin[:n]) != nil {
					return
				}
				room -= n
				stdin = stdin[n:]
			}
			_ = s.Send(guestapi.ChannelStdin, nil)
		}()
	}
	return collect(t, s, credits)
}

func collect(t *testing.T, s *guestlink.ExecStream, credits chan<- int) outcome {
	t.Helper()
	var o outcome
	var stdout, stderr bytes.Buffer
	for {
		ch, p, err := s.Recv()
		if err != nil {
			t.Fatalf("stream ended early: %v; stdout %q stderr %q", err, stdout.String(), stderr.String())
		}
		switch ch {
		case guestapi.ChannelStdout:
			stdout.Write(p)
		case guestapi.ChannelStderr:
			stderr.Write(p)
		case guestapi.ChannelStarted:
			o.started = true
		case guestapi.ChannelCredit:
			if credits != nil {
				credits <- int(p[0])<<24 | int(p[1])<<16 | int(p[2])<<8 | int(p[3])
			}
		case guestapi.ChannelExit:
			if err := json.Unmarshal(p, &o.exit); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Recv(); err != io.EOF {
				t.Errorf("after exit: %v, want EOF", err)
			}
			if credits != nil {
				close(credits)
			}
			o.stdout, o.stderr = stdout.String(), stderr.String()
			return o
		}
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{Build: "b1"})
	o := run(t, c, guestapi.ExecRequest{Argv: []string{"sh", "-c", "cat; echo err >&2; exit 7"}}, []byte("data"))
	if o.stdout != "data" || o.stderr != "err\n" || o.exit.Code != 7 {
		t.Errorf("got %+v", o)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{Build: "b1"})
	h, err := c.Health(testContext(t))
	if err != nil || h.Build != "b1" || h.UptimeMS <= 0 {
		t.Errorf("got %+v, %v", h, err)
	}
}

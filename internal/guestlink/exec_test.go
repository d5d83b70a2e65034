package guestlink_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guest"
	"github.com/bangervm/banger/internal/guestlink"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		req  guestapi.ExecRequest
		want guestapi.Exit
	}{
		{"zero", guestapi.ExecRequest{Argv: []string{"true"}}, guestapi.Exit{}},
		{"code", guestapi.ExecRequest{Argv: []string{"sh", "-c", "exit 42"}}, guestapi.Exit{Code: 42}},
		{"signal", guestapi.ExecRequest{Argv: []string{"sh", "-c", "kill -KILL $$"}}, guestapi.Exit{Code: 137, Signal: "KILL"}},
		{"missing", guestapi.ExecRequest{Argv: []string{"no-such-command"}}, guestapi.Exit{Code: 127, Message: "cannot run no-such-command: command not found"}},
		{"missing path", guestapi.ExecRequest{Argv: []string{"/no/such"}}, guestapi.Exit{Code: 127, Message: "cannot run /no/such: no such file or directory"}},
		{"not executable", guestapi.ExecRequest{Argv: []string{plain}}, guestapi.Exit{Code: 126, Message: "cannot run " + plain + ": permission denied"}},
		{"no folder", guestapi.ExecRequest{Argv: []string{"true"}, Workdir: "/no/such"}, guestapi.Exit{Code: 125, Invalid: true, Message: "cannot enter folder /no/such in the guest: no such file or directory"}},
		{"relative folder", guestapi.ExecRequest{Argv: []string{"true"}, Workdir: "tmp"}, guestapi.Exit{Code: 125, Invalid: true, Message: "cannot enter folder tmp in the guest: it is not an absolute path"}},
		{"no user", guestapi.ExecRequest{Argv: []string{"true"}, User: "nobody-here"}, guestapi.Exit{Code: 125, Invalid: true, Message: `cannot find user "nobody-here" in the guest`}},
		{"zero byte", guestapi.ExecRequest{Argv: []string{"a\x00b"}}, guestapi.Exit{Code: 125, Invalid: true, Message: "cannot run the command: an argument or variable holds a zero byte"}},
		{"time-out", guestapi.ExecRequest{Argv: []string{"sleep", "100"}, TimeoutMS: 50}, guestapi.Exit{Code: 143, Signal: "TERM", TimedOut: true}},
		{"time-out ignored", guestapi.ExecRequest{Argv: []string{"sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"}, TimeoutMS: 50}, guestapi.Exit{Code: 137, Signal: "KILL", TimedOut: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.req.NoStdin = true
			o := run(t, c, tc.req, nil)
			if diff := cmp.Diff(tc.want, o.exit); diff != "" {
				t.Errorf("exit (-want +got):\n%s", diff)
			}
			if began := tc.want.Message == ""; o.started != began {
				t.Errorf("started frame: %v", o.started)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{Env: []string{"A=vm", "B=vm"}, Workdir: "/usr"})
	o := run(t, c, guestapi.ExecRequest{Argv: []string{"sh", "-c", "echo $A $B $IS_SANDBOX $TERM; pwd"}, Env: []string{"B=req"}, NoStdin: true}, nil)
	if want := "vm req 1 dumb\n/usr\n"; o.stdout != want {
		t.Errorf("got %q, want %q", o.stdout, want)
	}
}

// The command ends when CMD ends, though what it left behind holds its output.
func TestInheritedOutput(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	for _, tty := range []bool{false, true} {
		began := time.Now()
		o := run(t, c, guestapi.ExecRequest{Argv: []string{"sh", "-c", "trap '' HUP; sleep 30 & echo hi"}, TTY: tty, NoStdin: true}, nil)
		if strings.TrimSpace(o.stdout) != "hi" || o.exit.Code != 0 {
			t.Errorf("tty %v: got %+v", tty, o)
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("tty %v: it took %v", tty, d)
		}
	}
}

// CMD may end without reading its stdin, and the client send on.
func TestStdinNobodyReads(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	o := run(t, c, guestapi.ExecRequest{Argv: []string{"sh", "-c", "exec <&-; echo done; sleep 0.2"}}, make([]byte, 5<<20))
	if o.stdout != "done\n" || o.exit.Code != 0 {
		t.Errorf("got %+v", o)
	}
}

func TestBulkBothWays(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	data := make([]byte, 24<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	o := run(t, c, guestapi.ExecRequest{Argv: []string{"cat"}}, data)
	if sha256.Sum256([]byte(o.stdout)) != sha256.Sum256(data) || o.exit.Code != 0 {
		t.Errorf("%d bytes came back, exit %+v", len(o.stdout), o.exit)
	}
}

func TestHundredAtOnce(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			o := run(t, c, guestapi.ExecRequest{Argv: []string{"sh", "-c", fmt.Sprintf("cat; echo %d >&2; exit %d", i, i)}}, []byte("in"))
			if o.stdout != "in" || o.stderr != fmt.Sprintf("%d\n", i) || o.exit.Code != i {
				t.Errorf("%d: got %+v", i, o)
			}
		})
	}
	wg.Wait()
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	s, err := c.Exec(testContext(t), guestapi.ExecRequest{Argv: []string{"sh", "-c", "stty size; read x; stty size; cat"}, TTY: true, Rows: 11, Cols: 22}, guestlink.ExecOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(guestapi.ChannelResize, []byte(`{"rows":33,"cols":44}`)); err != nil {
		t.Fatal(err)
	}
	for _, junk := range []string{`{"rows":-1,"cols":99999}`, `x`} {
		if err := s.Send(guestapi.ChannelResize, []byte(junk)); err != nil {
			t.Fatal(err)
		}
	}
	for _, in := range []string{"go\n", "last\n", ""} {
		if err := s.Send(guestapi.ChannelStdin, []byte(in)); err != nil {
			t.Fatal(err)
		}
	}
	o := collect(t, s, nil)
	if !strings.Contains(o.stdout, "33 44\r\n") || strings.Count(o.stdout, "last\r\n") != 2 || o.exit.Code != 0 {
		t.Errorf("got %+v", o)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	for _, sig := range []string{"INT", "SIGTERM", "hup"} {
		s, err := c.Exec(testContext(t), guestapi.ExecRequest{Argv: []string{"sleep", "100"}, NoStdin: true}, guestlink.ExecOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"NOSUCH", strings.Repeat("X", 1000), sig} {
			if err := s.Send(guestapi.ChannelSignal, []byte(name)); err != nil {
				t.Fatal(err)
			}
		}
		o := collect(t, s, nil)
		if want := strings.ToUpper(strings.TrimPrefix(sig, "SIG")); o.exit.Signal != want {
			t.Errorf("%s: got %+v", sig, o.exit)
		}
		_ = s.Close()
	}
}

// A client that dies sends HUP to CMD.
func TestClientGone(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	mark := filepath.Join(t.TempDir(), "mark")
	s, err := c.Exec(testContext(t), guestapi.ExecRequest{Argv: []string{"sh", "-c", "trap 'echo hup > " + mark + "; exit' HUP; echo ready; while :; do sleep 0.05; done"}, NoStdin: true}, guestlink.ExecOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, s)
	_ = s.Close()
	waitFor(t, func() bool { b, _ := os.ReadFile(mark); return string(b) == "hup\n" })
}

// The same while CMD is stopped by a client that reads nothing.
func TestClientGoneWhileFull(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	mark := filepath.Join(t.TempDir(), "mark")
	s, err := c.Exec(testContext(t), guestapi.ExecRequest{Argv: []string{"sh", "-c", "trap 'echo hup > " + mark + "' HUP; cat /dev/zero"}, NoStdin: true}, guestlink.ExecOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, s)
	time.Sleep(300 * time.Millisecond) // let the window fill
	_ = s.Close()
	waitFor(t, func() bool { b, _ := os.ReadFile(mark); return string(b) == "hup\n" })
}

func TestDetach(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	mark := filepath.Join(t.TempDir(), "mark")
	o := run(t, c, guestapi.ExecRequest{Argv: []string{"sh", "-c", "sleep 0.3; echo on > " + mark}, Detach: true}, nil)
	if !o.started || o.exit.Code != 0 {
		t.Errorf("got %+v", o)
	}
	waitFor(t, func() bool { b, _ := os.ReadFile(mark); return string(b) == "on\n" })
}

// A client that sends beyond its window is cut off.
func TestWindowExceeded(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	s, err := c.Exec(testContext(t), guestapi.ExecRequest{Argv: []string{"sleep", "100"}}, guestlink.ExecOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		chunk := make([]byte, guestapi.MaxFrame)
		for range 3 * guestapi.StdinWindow / len(chunk) {
			if s.Send(guestapi.ChannelStdin, chunk) != nil {
				return
			}
		}
	}()
	defer func() { _ = s.Close(); <-sent }()
	for {
		if _, _, err := s.Recv(); err != nil {
			if api.KindOf(err) != api.KindUnavailable {
				t.Errorf("got %v", err)
			}
			return
		}
	}
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	c := newAgent(t, guest.Options{})
	_, err := c.Shutdown(testContext(t), guestapi.Shutdown{})
	if api.KindOf(err) != api.KindUnsupported {
		t.Errorf("shutdown: %v", err)
	}
	if _, err = c.Grow(testContext(t), "work"); api.KindOf(err) != api.KindUnsupported {
		t.Errorf("grow: %v", err)
	}
	if err := c.Sync(testContext(t)); err != nil {
		t.Errorf("sync: %v", err)
	}
	if s, err := c.Stats(testContext(t)); err != nil || s.MemoryTotalBytes == 0 || s.Processes == 0 {
		t.Errorf("stats: %+v, %v", s, err)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	off := make(chan struct{})
	c := newAgent(t, guest.Options{System: guest.System{Shutdown: func(_ context.Context, s guestapi.Shutdown) (guestapi.ShutdownReply, func()) {
		return guestapi.ShutdownReply{Killed: int(s.GraceMS)}, func() { close(off) }
	}}})
	r, err := c.Shutdown(testContext(t), guestapi.Shutdown{GraceMS: 3})
	if err != nil || r.Killed != 3 {
		t.Errorf("got %+v, %v", r, err)
	}
	<-off
	_, err = c.Exec(testContext(t), guestapi.ExecRequest{Argv: []string{"true"}}, guestlink.ExecOptions{})
	if api.KindOf(err) != api.KindBadState {
		t.Errorf("exec after shutdown: %v", err)
	}
}

// Streams that carry stdin go the bulk way, and the ordinary one when that does
// not answer.
func TestBulkWay(t *testing.T) {
	t.Parallel()
	mux := newMux(t, guest.Options{})
	bulkMux := newMux(t, guest.Options{Env: []string{"WAY=bulk"}})
	req := guestapi.ExecRequest{Argv: []string{"sh", "-c", "echo $WAY"}}
	for _, tc := range []struct {
		name string
		bulk guestlink.DialFunc
		req  guestapi.ExecRequest
		want string
	}{
		{"bulk", bulkMux.Dial, req, "bulk\n"},
		{"no stdin", bulkMux.Dial, guestapi.ExecRequest{Argv: req.Argv, NoStdin: true}, "\n"},
		{"refused", func(context.Context) (net.Conn, error) { return nil, io.EOF }, req, "\n"},
		{"closed", func(context.Context) (net.Conn, error) { a, b := net.Pipe(); _ = b.Close(); return a, nil }, req, "\n"},
		{"silent", func(context.Context) (net.Conn, error) { a, _ := net.Pipe(); return a, nil }, req, "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := guestlink.NewClient(mux.Dial, tc.bulk)
			if o := run(t, c, tc.req, nil); o.stdout != tc.want {
				t.Errorf("got %+v, want %q", o, tc.want)
			}
		})
	}
}

// awaitOutput returns once the command said something, so its traps are set.
func awaitOutput(t *testing.T, s *guestlink.ExecStream) {
	t.Helper()
	for {
		ch, _, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if ch == guestapi.ChannelStdout {
			return
		}
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

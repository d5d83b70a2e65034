package guest

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/guestapi"
)

// exploding is a conn whose owner's goroutines panic once the command runs.
type exploding struct {
	net.Conn
	fuse int
}

func (e *exploding) Write(p []byte) (int, error) {
	if e.fuse--; e.fuse < 0 {
		panic("boom")
	}
	return e.Conn.Write(p)
}

// A panic in one of a session's goroutines ends its command and its stream, and
// nothing else: this process would not live to tell.
func TestSessionPanics(t *testing.T) {
	t.Parallel()
	spawn := &hostSpawner{}
	a := NewAgent(Options{spawn: spawn}, slog.New(slog.DiscardHandler))
	defer a.Close()
	ours, theirs := net.Pipe()
	s := &session{agent: a, conn: &exploding{theirs, 1}, r: bufio.NewReader(theirs), gone: make(chan struct{})}
	ended := make(chan struct{})
	go func() { defer close(ended); s.run() }()
	ask, _ := json.Marshal(guestapi.ExecRequest{Argv: []string{"/bin/sh", "-c", "echo said; trap '' HUP; while :; do sleep 1; done"}})
	if err := guestapi.WriteFrame(ours, guestapi.ChannelRequest, ask); err != nil {
		t.Fatal(err)
	}
	var buf []byte
	ch, p, err := guestapi.ReadFrame(ours, &buf)
	var started guestapi.Started
	if err != nil || ch != guestapi.ChannelStarted || json.Unmarshal(p, &started) != nil {
		t.Fatalf("%d %q %v", ch, p, err)
	}
	if ch, p, err := guestapi.ReadFrame(ours, &buf); err == nil {
		t.Errorf("after the panic: %d %q", ch, p)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the session goes on")
	}
	if err := syscall.Kill(started.PID, 0); err == nil {
		t.Error("the command goes on")
	}
}

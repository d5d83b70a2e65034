package debian

import (
	"io"
	"sync/atomic"
	"testing"
	"time"
)

// apt that waits for ever on a full disk is ended; one that says or writes
// something, or has room, is not.
func TestABuildThatIsStuckOnAFullDiskIsEnded(t *testing.T) {
	t.Parallel()
	p, err := start(program(t, "while :; do wait; done\n"), nil, "/nonexistent", nil)
	if err != nil {
		t.Fatal(err)
	}
	started := pids(t, p.stdout)
	enough := make(chan struct{})
	looks := int64(0)
	go p.watch(stuckWatch{every: time.Millisecond, patience: 10 * time.Millisecond, room: func() int64 {
		switch looks++; {
		case looks < 100:
			return littleRoom // silent, with room
		case looks < 200:
			p.said.Add(1) // little room, and not silent
		case looks < 300:
			return looks // silent, and it writes
		case looks == 300:
			close(enough)
		}
		return 0
	}})
	<-enough
	if p.stuck.Load() {
		t.Error("it was ended too soon")
	}
	_, _ = io.Copy(io.Discard, p)
	if p.wait() == nil || !p.stuck.Load() {
		t.Errorf("stuck %v", p.stuck.Load())
	}
	gone(t, started)
}

func TestWatchingABuildEndsWithIt(t *testing.T) {
	t.Parallel()
	p, err := start(program(t, "exit 0\n"), nil, "/nonexistent", nil)
	if err != nil {
		t.Fatal(err)
	}
	var looks atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.watch(stuckWatch{every: time.Millisecond, patience: time.Hour, room: func() int64 { looks.Add(1); return 0 }})
	}()
	_, _ = io.Copy(io.Discard, p)
	if err := p.wait(); err != nil || p.stuck.Load() {
		t.Errorf("%v, stuck %v", err, p.stuck.Load())
	}
	<-done
}

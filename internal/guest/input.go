package guest

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// creditStep is how much the command must have taken before the client is told.
const creditStep = 128 << 10

// input carries stdin into the command without ever making the reader of frames
// wait: what the pipe does not take at once is queued, at most a window of it.
type input struct {
	f      *os.File
	tty    bool
	credit func(n int) // called by the writer only

	wake chan struct{} // capacity 1
	stop chan struct{}
	done chan struct{} // closed when the writer ended

	mu     sync.Mutex
	queue  [][]byte
	owed   int  // received and not yet given back as credit
	taken  int  // of these, what the command has
	eof    bool // the client sent the end
	broken bool // the command reads no more; bytes are dropped
	last   byte
}

// newInput makes an input; its owner runs write.
func newInput(f *os.File, tty bool, credit func(n int)) *input {
	return &input{f: f, tty: tty, credit: credit, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), last: '\n'}
}

// feed takes one frame's payload; it reports false when the client sent more
// than its window.
func (in *input) feed(p []byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(p) == 0 {
		in.eof = true
		in.nudge()
		return true
	}
	if in.eof {
		return true
	}
	if in.owed+len(p) > guestapi.StdinWindow {
		return false
	}
	in.owed += len(p)
	in.last = p[len(p)-1]
	if in.broken {
		in.taken += len(p)
		in.nudge()
		return true
	}
	if len(in.queue) == 0 {
		n := in.now(p)
		in.taken += n
		p = p[n:]
	}
	if len(p) > 0 {
		in.queue = append(in.queue, append([]byte(nil), p...))
	}
	if len(in.queue) > 0 || in.taken >= creditStep {
		in.nudge()
	}
	return true
}

// now writes what fits without waiting.
func (in *input) now(p []byte) int {
	rc, err := in.f.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = rc.Write(func(fd uintptr) bool {
		n, err = unix.Write(int(fd), p)
		return true
	})
	if err != nil {
		n = 0 // the writer meets the error again
	}
	return max(n, 0)
}

func (in *input) nudge() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// write is the writer's goroutine.
func (in *input) write() {
	defer close(in.done)
	grown := false
	for {
		in.mu.Lock()
		var head []byte
		if len(in.queue) > 0 {
			head = in.queue[0]
		}
		credit := 0
		if in.taken >= creditStep {
			credit = in.taken
			in.owed -= credit
			in.taken = 0
		}
		ended := in.eof && head == nil
		broken, last := in.broken, in.last
		in.mu.Unlock()

		if credit > 0 {
			in.credit(credit)
		}
		switch {
		case head != nil:
			if !grown && !in.tty {
				grown = true
				growPipe(in.f)
			}
			_, err := in.f.Write(head)
			in.took(err)
		case ended && !broken:
			in.end(last)
			return
		default:
			select {
			case <-in.wake:
			case <-in.stop:
				return
			}
		}
	}
}

// took drops the head of the queue; after an error everything.
func (in *input) took(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil {
		in.broken = true
		for _, p := range in.queue {
			in.taken += len(p)
		}
		in.queue = nil
		return
	}
	in.taken += len(in.queue[0])
	in.queue[0] = nil
	if in.queue = in.queue[1:]; len(in.queue) == 0 {
		in.queue = nil
	}
}

// end tells the command that no more comes: a closed pipe, or on a terminal the
// end-of-file character, twice when a line is unfinished.
func (in *input) end(last byte) {
	if !in.tty {
		_ = in.f.Close()
		return
	}
	const eot = "\x04\x04"
	n := 2
	if last == '\n' || last == '\r' {
		n = 1
	}
	_, _ = in.f.WriteString(eot[:n])
}

// close ends the writer; a terminal's file belongs to the output's side too.
func (in *input) close() {
	close(in.stop)
	_ = in.f.Close() // ends a write that waits
	<-in.done
}

// growPipe lets much data through with fewer switches.
func growPipe(f *os.File) {
	_ = control(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 1<<20)
		return err
	})
}

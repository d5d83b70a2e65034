package guest

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

const (
	smallRead = 4 << 10
	// ttyQuiet is how long a terminal that somebody still holds open must be
	// quiet after the command's end; its output passes through a kernel queue.
	ttyQuiet = 20 * time.Millisecond
	// maxTTYTail is how much such a terminal may still say.
	maxTTYTail = 1 << 20
)

// bigBuffers are whole frames, for outputs that fill small ones.
type bigBuffers struct{ pool sync.Pool }

func (b *bigBuffers) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, frameHead+guestapi.MaxFrame)
}

func (b *bigBuffers) put(p []byte) { b.pool.Put(&p) }

// pump copies f to the client until its end. A deadline on f says that the
// command ended: what is in f then is still sent, what others write into it
// later is not.
func (s *session) pump(ch byte, f *os.File) {
	buf := make([]byte, frameHead+smallRead)
	big := false
	for {
		n, err := f.Read(buf[frameHead:])
		if n > 0 {
			putHead(buf[:frameHead+n], ch)
			if !s.send(buf[:frameHead+n]) {
				s.lost() // before its output has no reader
				break
			}
			if !big && n == smallRead {
				big = true
				buf = s.agent.buffers.get()
				growPipe(f)
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.drain(ch, f, buf)
			break
		}
		if err != nil {
			break
		}
	}
	if big {
		s.agent.buffers.put(buf)
	}
	if !s.tty {
		_ = f.Close()
	}
}

// drain sends what is in f now.
func (s *session) drain(ch byte, f *os.File, buf []byte) {
	left := 0
	if s.tty {
		left = maxTTYTail
	} else if control(f, func(fd int) (err error) {
		left, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	}) != nil {
		return
	}
	_ = f.SetReadDeadline(time.Time{})
	for left > 0 {
		room := buf[frameHead:min(len(buf), frameHead+left)]
		var n int
		var err error
		if s.tty {
			_ = f.SetReadDeadline(time.Now().Add(ttyQuiet))
			n, err = f.Read(room)
		} else {
			n, err = readNow(f, room)
		}
		if n > 0 {
			left -= n
			putHead(buf[:frameHead+n], ch)
			if !s.send(buf[:frameHead+n]) {
				return
			}
		}
		if err != nil || n <= 0 {
			return
		}
	}
}

// readNow reads without waiting.
func readNow(f *os.File, p []byte) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := 0
	var inner error
	if err := rc.Read(func(fd uintptr) bool {
		n, inner = unix.Read(int(fd), p)
		return true
	}); err != nil {
		return 0, err
	}
	return max(n, 0), inner
}

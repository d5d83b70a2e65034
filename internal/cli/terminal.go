package cli

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/bangervm/banger/api"
)

// input reads our stdin such that a read under way can be called off: what the
// user types after the command ended belongs to whoever reads next.
type input struct {
	f    *os.File
	wake [2]int // a pipe: a byte in it ends all reads
	once sync.Once
}

// newInput wraps a file; release must be called after the last Read returned.
func newInput(f *os.File) (*input, error) {
	in := &input{f: f}
	if err := unix.Pipe2(in.wake[:], unix.O_CLOEXEC); err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot read stdin: %w", err)
	}
	return in, nil
}

func (in *input) Read(p []byte) (int, error) {
	fds := []unix.PollFd{
		{Fd: int32(in.f.Fd()), Events: unix.POLLIN},
		{Fd: int32(in.wake[0]), Events: unix.POLLIN},
	}
	for {
		_, err := unix.Poll(fds, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("poll", err)
		}
		if fds[1].Revents != 0 {
			return 0, os.ErrClosed
		}
		if fds[0].Revents&unix.POLLNVAL != 0 {
			return 0, io.EOF // our caller closed it
		}
		return in.f.Read(p)
	}
}

// Close ends a Read under way, and all later ones.
func (in *input) Close() error {
	in.once.Do(func() {
		_, _ = unix.Write(in.wake[1], []byte{0}) // an empty pipe takes one byte
	})
	return nil
}

func (in *input) release() {
	unix.Close(in.wake[0])
	unix.Close(in.wake[1])
}

// terminal is the user's terminal while a command in a VM has it.
type terminal struct {
	in    *os.File // nil: stdin is no terminal
	size  *os.File
	saved *term.State
}

// newTerminal finds the terminals among our streams.
func (a *app) newTerminal() *terminal {
	t := &terminal{}
	if f, ok := a.env.Stdin.(*os.File); ok && isTerminal(f) {
		t.in = f
	}
	for _, s := range []any{a.env.Stdout, a.env.Stdin, a.env.Stderr} {
		if f, ok := s.(*os.File); ok && isTerminal(f) {
			t.size = f
			break
		}
	}
	return t
}

// rows and columns of the terminal; 24 by 80 where there is none.
func (t *terminal) dimensions() (rows, cols int) {
	if t.size != nil {
		if w, h, err := term.GetSize(int(t.size.Fd())); err == nil && w > 0 && h > 0 {
			return h, w
		}
	}
	return 24, 80
}

// raw hands every key to the command until restore.
func (t *terminal) raw() error {
	if t.in == nil || t.saved != nil {
		return nil
	}
	saved, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot set up the terminal: %w", err)
	}
	t.saved = saved
	return nil
}

func (t *terminal) restore() {
	if t.saved != nil {
		_ = term.Restore(int(t.in.Fd()), t.saved) // a terminal that is gone needs none
		t.saved = nil
	}
}

package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// stdio is both ends of a command's standard streams. With a terminal, in and
// out are its master, err is nil.
type stdio struct {
	child        [3]uintptr
	in, out, err *os.File
	fds          []int // the child's, each once
}

func newStdio(req guestapi.ExecRequest, acc account) (*stdio, error) {
	s := &stdio{}
	var err error
	switch {
	case req.Detach:
		err = s.null(0, 1, 2)
	case req.TTY:
		err = s.terminal(req.Rows, req.Cols, acc)
	default:
		err = s.pipes(req.NoStdin, acc)
	}
	if err != nil {
		s.closeChild()
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stdio) null(which ...int) error {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open /dev/null: %w", err)
	}
	s.fds = append(s.fds, fd)
	for _, i := range which {
		s.child[i] = uintptr(fd)
	}
	return nil
}

func (s *stdio) pipes(noStdin bool, acc account) error {
	var err error
	if noStdin {
		err = s.null(0)
	} else {
		s.in, err = s.pipe(0, acc)
	}
	if err == nil {
		s.out, err = s.pipe(1, acc)
	}
	if err == nil {
		s.err, err = s.pipe(2, acc)
	}
	return err
}

// pipe makes the pipe for the child's descriptor i and returns our end. The
// child's end belongs to its user, who may want to open /dev/stdout again.
func (s *stdio) pipe(i int, acc account) (*os.File, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	theirs, ours := p[1], p[0]
	if i == 0 {
		theirs, ours = p[0], p[1]
	}
	s.fds = append(s.fds, theirs)
	s.child[i] = uintptr(theirs)
	if acc.uid != 0 {
		_ = unix.Fchown(theirs, int(acc.uid), int(acc.gid))
	}
	_ = unix.SetNonblock(ours, true)
	return os.NewFile(uintptr(ours), "pipe"), nil
}

func (s *stdio) terminal(rows, cols int, acc account) error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("cannot make a terminal: %w", err)
	}
	f := os.NewFile(uintptr(master), "ptmx")
	s.in, s.out = f, f
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("cannot unlock the terminal: %w", err)
	}
	slave, err := ptyPeer(master)
	if err != nil {
		return fmt.Errorf("cannot open the terminal: %w", err)
	}
	s.fds = append(s.fds, slave)
	s.child = [3]uintptr{uintptr(slave), uintptr(slave), uintptr(slave)}
	if acc.uid != 0 {
		_ = unix.Fchown(slave, int(acc.uid), -1)
	}
	if ws, ok := winsize(rows, cols); ok {
		_ = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, ws)
	}
	return nil
}

// ptyPeer opens the other end of a terminal without a path.
func ptyPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// closeChild closes the child's ends, once it has them.
func (s *stdio) closeChild() {
	for _, fd := range s.fds {
		_ = unix.Close(fd)
	}
	s.fds = nil
}

// close closes our ends.
func (s *stdio) close() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// control runs fn on f's descriptor; it never waits.
func control(f *os.File, fn func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := rc.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

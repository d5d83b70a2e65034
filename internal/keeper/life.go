package keeper

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// life watches a process that need not be our child.
type life struct {
	done chan struct{} // closed when it is gone
	file *os.File
	wg   sync.WaitGroup
}

func ended() *life {
	l := &life{done: make(chan struct{})}
	close(l.done)
	return l
}

// watchLife watches the process by a descriptor of it, which no other process
// can come to be behind.
func watchLife(pid int) (*life, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	l := &life{done: make(chan struct{}), file: os.NewFile(uintptr(fd), "keeper")}
	raw, err := l.file.SyscallConn()
	if err != nil {
		l.file.Close()
		return nil, err
	}
	l.wg.Go(func() {
		gone := false
		// It becomes readable when the process ends. Read returns an error when
		// the file is closed, which is no news of the process.
		err := raw.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(p, 0)
			gone = n > 0
			return gone || (err != nil && err != syscall.EINTR)
		})
		if err == nil && gone {
			close(l.done)
			l.file.Close()
		}
	})
	return l, nil
}

// close stops watching; done stays as it is.
func (l *life) close() {
	if l.file != nil {
		l.file.Close()
	}
	l.wg.Wait()
}

package guest

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is a started process. done yields its wait status once.
type child struct {
	pid  int
	done <-chan syscall.WaitStatus
}

// spawner starts processes and collects their ends.
type spawner interface {
	spawn(path string, argv []string, attr *syscall.ProcAttr) (child, error)
	// signal sends sig to the process group (or session's group) pid leads,
	// unless the process is already collected.
	signal(pid int, sig syscall.Signal) error
}

// hostSpawner is for an ordinary process: it waits for each child by its pid
// and leaves the process's other children alone.
type hostSpawner struct {
	mu   sync.Mutex
	live map[int]bool
}

func (h *hostSpawner) spawn(path string, argv []string, attr *syscall.ProcAttr) (child, error) {
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return child{}, err
	}
	h.mu.Lock()
	if h.live == nil {
		h.live = map[int]bool{}
	}
	h.live[pid] = true
	h.mu.Unlock()
	done := make(chan syscall.WaitStatus, 1)
	// The goroutine ends with the process; sessions wait for done.
	go func() {
		var info unix.Siginfo
		// Look without collecting, so that the pid stays ours until it is marked.
		for errors.Is(unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		}
		h.mu.Lock()
		delete(h.live, pid)
		var ws syscall.WaitStatus
		for {
			if _, err := syscall.Wait4(pid, &ws, 0, nil); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		h.mu.Unlock()
		done <- ws
	}()
	return child{pid, done}, nil
}

func (h *hostSpawner) signal(pid int, sig syscall.Signal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.live[pid] {
		return syscall.ESRCH
	}
	return syscall.Kill(-pid, sig)
}

// initSpawner is for PID 1: one goroutine collects every child, our own and
// the orphans the kernel hands to us, and gives our own's status to who waits.
type initSpawner struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
	// empty is closed while there are no children at all, and replaced when one
	// is started.
	empty  chan struct{}
	isOpen bool
}

func newInitSpawner() *initSpawner {
	s := &initSpawner{waiting: map[int]chan syscall.WaitStatus{}, empty: make(chan struct{})}
	close(s.empty)
	return s
}

func (s *initSpawner) spawn(path string, argv []string, attr *syscall.ProcAttr) (child, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isOpen {
		s.empty, s.isOpen = make(chan struct{}), true
	}
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return child{}, err
	}
	done := make(chan syscall.WaitStatus, 1)
	s.waiting[pid] = done
	return child{pid, done}, nil
}

func (s *initSpawner) signal(pid int, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[pid] == nil {
		return syscall.ESRCH
	}
	return syscall.Kill(-pid, sig)
}

// gone is closed when PID 1 has no child left, that is, when no process but
// it and the kernel's own exists.
func (s *initSpawner) gone() <-chan struct{} {
	s.reap()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.empty
}

// run collects until ctx ends.
func (s *initSpawner) run(ctx context.Context) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGCHLD)
	defer signal.Stop(ch)
	for {
		s.reap()
		select {
		case <-ch:
		case <-ctx.Done():
			return
		}
	}
}

func (s *initSpawner) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD):
			if s.isOpen {
				close(s.empty)
				s.isOpen = false
			}
			return
		case err != nil, pid == 0:
			return
		}
		if done := s.waiting[pid]; done != nil {
			delete(s.waiting, pid)
			done <- ws
		}
	}
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
)

// lockPatience is how long a starting daemon waits for one that is leaving.
const lockPatience = 15 * time.Second

// lock is the daemon's lock on its root, held until the process ends or Close.
type lock struct{ f *os.File }

// takeLock makes this process the only daemon on the root. Another that serves
// is named at once; one that does not answer, because it is leaving or still
// starting, is waited for.
func takeLock(ctx context.Context, l layout.Layout, patience time.Duration) (*lock, error) {
	f, err := os.OpenFile(l.DaemonLock(), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, api.Errorf(fileKind(err), "cannot open the daemon's lock: %w", err)
	}
	deadline := time.Now().Add(patience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return writePID(f)
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, api.Errorf(api.KindUnsupported, "cannot lock %s: %w", f.Name(), err).
				WithHint("export BANGER_ROOT=/var/tmp/banger-$USER")
		}
		if answers(l.DaemonSocket()) || time.Now().After(deadline) {
			holder := holderOf(f)
			f.Close()
			return nil, api.Errorf(api.KindBadState, "cannot start the daemon: another daemon%s has %s", holder, l.State).
				WithHint("banger daemon status")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func writePID(f *os.File) (*lock, error) {
	text := strconv.Itoa(os.Getpid()) + "\n"
	err := f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err != nil {
		f.Close()
		return nil, api.Errorf(fileKind(err), "cannot write the daemon's lock: %w", err)
	}
	return &lock{f}, nil
}

// holderOf says who has the lock, where the file tells.
func holderOf(f *os.File) string {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0) // an unreadable file just names nobody
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid <= 0 {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", pid)
}

// answers says whether somebody accepts connections at the socket.
func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Close gives the lock back. The file stays: removing it would let two daemons
// lock two files of one name.
func (l *lock) Close() error { return l.f.Close() }

// fileKind is the kind of error a failed file operation is.
func fileKind(err error) api.Kind {
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS):
		return api.KindDenied
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return api.KindNoSpace
	}
	return api.KindInternal
}

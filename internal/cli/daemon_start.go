package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

// How long the start of a daemon may take, and how often we look.
const (
	daemonStartTimeout = 60 * time.Second
	daemonStartPoll    = 5 * time.Millisecond
)

// maxDaemonLog is the size beyond which a starting daemon's log begins anew;
// one older log is kept.
const maxDaemonLog = 4 << 20

// dial connects to the daemon; where nobody listens it starts one first, if
// this command may.
func (a *app) dial(ctx context.Context) (net.Conn, error) {
	conn, err := client.DialSocket(ctx, a.layout.DaemonSocket())
	if err == nil || !client.NobodyListens(err) {
		return conn, err
	}
	if !a.startsUp {
		return nil, errNoDaemon(err)
	}
	return a.startDaemon(ctx)
}

func errNoDaemon(cause error) error {
	return api.Errorf(api.KindUnavailable, "no daemon runs: %w", cause).WithHint("banger daemon restart")
}

// startDaemon starts the daemon and waits until it answers. Of several calls at
// once, in any process, one starts it and the others wait for that one.
func (a *app) startDaemon(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonStartTimeout)
	defer cancel()
	if err := a.layout.Ensure(); err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, a.layout.DaemonStartLock())
	if err != nil {
		return nil, err
	}
	defer unlock()
	socket := a.layout.DaemonSocket()
	if conn, err := client.DialSocket(ctx, socket); err == nil || !client.NobodyListens(err) {
		return conn, err // somebody started it while we waited
	}
	child, err := a.launchDaemon()
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(daemonStartPoll)
	defer tick.Stop()
	var died time.Time
	var status unix.WaitStatus
	for {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, api.Errorf(api.KindUnavailable, "cannot start the daemon: it did not answer within %s, see %s", daemonStartTimeout, a.layout.DaemonLog())
			}
			return nil, api.Errorf(api.KindCancelled, "cancelled while the daemon was starting")
		case <-tick.C:
		}
		if conn, err := client.DialSocket(ctx, socket); err == nil {
			return conn, nil
		}
		if died.IsZero() {
			if pid, err := unix.Wait4(child.pid, &status, unix.WNOHANG, nil); pid == child.pid || errors.Is(err, unix.ECHILD) {
				died = time.Now()
			}
			continue
		}
		// A daemon started by hand at the same moment makes ours leave, and may
		// need a moment more until it listens.
		if !otherDaemon(status) || time.Since(died) > 5*time.Second {
			return nil, child.lastWords(status)
		}
	}
}

// otherDaemon says whether the daemon left because another one is there.
func otherDaemon(status unix.WaitStatus) bool {
	return status.Exited() && status.ExitStatus() == api.KindBadState.ExitCode()
}

// daemonChild is a daemon on its way up.
type daemonChild struct {
	pid    int
	log    string
	offset int64 // where its log begins
}

// launchDaemon starts `banger daemon run` in a session of its own, with none
// of our files open, in the root folder.
func (a *app) launchDaemon() (daemonChild, error) {
	path := a.layout.DaemonLog()
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxDaemonLog {
		_ = os.Rename(path, path+".1") // a log that stays long is no reason to fail
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return daemonChild{}, api.Errorf(api.KindUnavailable, "cannot start the daemon: %w", err)
	}
	defer log.Close()
	offset, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return daemonChild{}, api.Errorf(api.KindUnavailable, "cannot start the daemon: %w", err)
	}
	closeInherited()
	cmd := exec.Command(ownPath(), "daemon", "run", "--json")
	cmd.Args[0] = "banger"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.layout.Root != "" { // it may have been relative
		cmd.Env = append(os.Environ(), "BANGER_ROOT="+a.layout.Root)
	}
	if err := cmd.Start(); err != nil {
		return daemonChild{}, api.Errorf(api.KindUnavailable, "cannot start the daemon: %w", err)
	}
	return daemonChild{pid: cmd.Process.Pid, log: path, offset: offset}, nil
}

// ownPath is our own file by its name, which is how lists of processes will
// name the daemon; where another file took its place meanwhile, by /proc.
func ownPath() string {
	const self = "/proc/self/exe"
	path, err := os.Readlink(self)
	if err != nil {
		return self
	}
	named, err1 := os.Stat(path)
	running, err2 := os.Stat(self)
	if err1 != nil || err2 != nil || !os.SameFile(named, running) {
		return self
	}
	return path
}

// closeInherited marks every file but the standard ones to be closed in
// children: our caller's, who may have left some open on purpose or not. Ours
// are marked already.
func closeInherited() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // no /proc: /proc/self/exe will say so
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// lastWords is why the daemon died: the error it logged last, else its last
// line.
func (d daemonChild) lastWords(status unix.WaitStatus) error {
	kind := api.KindUnavailable
	how := "it exited with " + strconv.Itoa(status.ExitStatus())
	if status.Signaled() {
		how = "it was killed by " + unix.SignalName(status.Signal())
	}
	line := ""
	for _, l := range slices.Backward(strings.Split(string(d.tail()), "\n")) {
		var reply api.ErrorReply
		if json.Unmarshal([]byte(l), &reply) == nil && reply.Error != nil {
			e := *reply.Error
			e.Message = "cannot start the daemon: " + e.Message
			return &e
		}
		if line == "" {
			line = strings.TrimSpace(l)
		}
	}
	if line == "" {
		return api.Errorf(kind, "cannot start the daemon: %s and logged nothing in %s", how, d.log)
	}
	return api.Errorf(kind, "cannot start the daemon: %s: %s", how, line).WithHint("tail %s", d.log)
}

// tail is the last of what the daemon logged since it was started.
func (d daemonChild) tail() []byte {
	f, err := os.Open(d.log)
	if err != nil {
		return nil
	}
	defer f.Close()
	const most = 16 << 10
	from := d.offset
	if fi, err := f.Stat(); err == nil && fi.Size()-from > most {
		from = fi.Size() - most
	}
	b := make([]byte, most)
	n, _ := f.ReadAt(b, from)
	return b[:n]
}

// lockFile takes an exclusive lock on a file that it creates if need be.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, api.Errorf(api.KindUnavailable, "cannot start the daemon: %w", err)
	}
	tick := time.NewTicker(daemonStartPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, api.Errorf(api.KindUnavailable, "cannot start the daemon: cannot lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, api.Errorf(api.KindUnavailable, "cannot start the daemon: another call holds %s", path)
		case <-tick.C:
		}
	}
}

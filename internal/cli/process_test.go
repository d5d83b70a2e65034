package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// patience is for a busy machine; nothing waits for it when all is well.
const patience = 60 * time.Second

// command makes a call of banger in a process of its own.
func (w *world) command(args ...string) *exec.Cmd {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "BANGER_TEST_MAIN=1")
	for k, v := range w.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// spawn runs a call to its end.
func (w *world) spawn(args ...string) result {
	w.t.Helper()
	var out, errs bytes.Buffer
	cmd := w.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// stopDaemon ends the daemon a test started.
func (w *world) stopDaemon() {
	w.t.Cleanup(func() {
		if got := w.spawn("daemon", "stop"); got.Code != 0 {
			w.t.Errorf("daemon stop: %+v", got)
		}
	})
}

// eventually waits until ok, which must not take long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// TestDaemonStarts: many calls at once on a fresh root start one daemon, and
// all are answered.
func TestDaemonStarts(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t)
	w.stopDaemon()
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if got := w.spawn("vm", "list", "-q"); got.Code != 0 || !strings.HasPrefix(got.Out, "aaaa") {
				t.Errorf("%+v", got)
			}
		})
	}
	all.Wait()
	if b, err := os.ReadFile(filepath.Join(w.root, "state", "started")); string(b) != "x" {
		t.Errorf("the daemon was started %d times: %v", len(b), err)
	}
}

// TestDaemonInheritsNothing: the caller waits for the end of its pipes, which
// the daemon must not hold open, and the daemon is of a session of its own.
func TestDaemonInheritsNothing(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t)
	w.stopDaemon()
	r, extra, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.command("vm", "list")
	cmd.ExtraFiles = []*os.File{extra}
	if out, err := cmd.CombinedOutput(); err != nil { // returns at the end of the pipes
		t.Fatalf("%v: %s", err, out)
	}
	extra.Close()
	ended := make(chan error, 1)
	go func() { _, err := io.ReadAll(r); ended <- err }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the daemon holds a descriptor of its caller")
	}
	pid := strings.TrimSpace(w.spawn("daemon", "status", "--format", "{{.pid}}").Out)
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	// pid (comm) state ppid pgrp session
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if fields[3] != pid {
		t.Errorf("session %s, want %s", fields[3], pid)
	}
	if cwd, err := os.Readlink("/proc/" + pid + "/cwd"); cwd != "/" {
		t.Errorf("folder %q, %v", cwd, err)
	}
}

func TestDaemonThatDies(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]struct {
		code int
		text string
	}{
		"dies":    {2, "error: cannot start the daemon: cannot read the configuration\nhint: edit it\n"},
		"crashes": {7, "error: cannot start the daemon: it exited with 3: panic: oh\nhint: tail "},
	} {
		w := emptyWorld(t)
		w.env["BANGER_TEST_DAEMON"] = how
		for range 2 { // the second looks at its own part of the log only
			if got := w.spawn("vm", "list"); got.Code != want.code || !strings.HasPrefix(got.Err, want.text) {
				t.Errorf("%s: %+v", how, got)
			}
		}
	}
}

func TestDaemonStopAndRestart(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t)
	w.stopDaemon()
	if got := w.spawn("daemon", "status"); got.Code != 7 || !strings.Contains(got.Err, "no daemon runs") {
		t.Errorf("status: %+v", got)
	}
	if got := w.spawn("daemon", "stop", "--json"); got.Code != 0 || !strings.Contains(got.Out, `"changed": false`) {
		t.Errorf("stop: %+v", got)
	}
	if got := w.spawn("version"); got.Code != 0 || strings.Contains(got.Out, "daemon") {
		t.Errorf("version: %+v", got)
	}
	if _, err := os.Stat(filepath.Join(w.root, "state", "started")); err == nil {
		t.Error("one of them started a daemon")
	}
	for range 2 {
		if got := w.spawn("daemon", "restart"); got.Code != 0 {
			t.Errorf("restart: %+v", got)
		}
	}
	if got := w.spawn("daemon", "stop"); got.Code != 0 {
		t.Errorf("stop: %+v", got)
	}
}

// TestStaleSocket: a socket nobody listens at is no daemon.
func TestStaleSocket(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t)
	if err := os.MkdirAll(filepath.Join(w.root, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(w.root, "run", "daemon.sock")}); err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
	w.stopDaemon()
	if got := w.spawn("vm", "list", "-q"); got.Code != 0 {
		t.Errorf("%+v", got)
	}
}

func TestForeignRoot(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t)
	w.env["BANGER_ROOT"] = "/proc/1/nothing"
	if got := w.spawn("vm", "list"); got.Code == 0 || !strings.Contains(got.Err, "cannot create folder") || !strings.Contains(got.Err, "hint: ") {
		t.Errorf("%+v", got)
	}
}

func TestKeeperArguments(t *testing.T) {
	t.Parallel()
	if got := emptyWorld(t).spawn("keeper", "a", "--b"); got.Code != 1 || !strings.Contains(got.Err, "keeper of a --b") {
		t.Errorf("%+v", got)
	}
}

// TestEndedWhileCreating: Ctrl-C, a closed terminal and a plain kill cancel
// what is under way and wait for its undoing; exit code 130.
func TestEndedWhileCreating(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"vm", "run", "--", "true"}, {"vm", "create"}, {"vm", "start", "db"}} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			t.Run(args[1]+" "+sig.String(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.fake.slow = true
				cmd := w.command(args...)
				var errs bytes.Buffer
				cmd.Stderr = &errs
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				waitRequest(t, w.fake, func() bool { return w.fake.run.End != "" || hasRequest(w.fake, "/events") })
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				w.fake.mu.Lock()
				cancelled := w.fake.cancelled
				w.fake.mu.Unlock()
				if code := cmd.ProcessState.ExitCode(); code != 130 || !cancelled {
					t.Errorf("code %d, cancelled %v, stderr %s", code, cancelled, errs.String())
				}
			})
		}
	}
}

// TestTheUndoingIsNotAwaitedForEver: a closed terminal sends no second signal.
func TestTheUndoingIsNotAwaitedForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, giveUp := context.WithCancelCause(t.Context())
		defer giveUp(nil)
		f := &follower{running: map[string]bool{}, ctx: ctx}
		sigs, stop := make(chan os.Signal), make(chan struct{})
		var all, cancelling sync.WaitGroup
		all.Go(func() { f.onSignals(sigs, stop, giveUp, &cancelling) })
		sigs <- syscall.SIGHUP
		time.Sleep(undoPatience - time.Second)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Error("gave up too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if api.KindOf(context.Cause(ctx)) != api.KindCancelled {
			t.Errorf("still waiting: %v", context.Cause(ctx))
		}
		close(stop)
		all.Wait()
	})
}

// TestFollowingEndsWithoutAWord: Ctrl-C is how one leaves what is followed.
func TestFollowingEndsWithoutAWord(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"events", "-f"}, {"vm", "logs", "-f", "web"}} {
		w := newWorld(t)
		w.fake.HandleFunc("GET /v1/vms/{vm}/logs", func(rw http.ResponseWriter, r *http.Request) {
			rw.(http.Flusher).Flush()
			w.fake.mu.Lock()
			w.fake.requests = append(w.fake.requests, r.URL.Path)
			w.fake.mu.Unlock()
			<-r.Context().Done()
		})
		cmd := w.command(args...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitRequest(t, w.fake, func() bool { return hasRequest(w.fake, "/logs") || hasRequest(w.fake, "/events") })
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 || errs.Len() != 0 {
			t.Errorf("%v: code %d, stderr %q", args, code, errs.String())
		}
	}
}

func hasRequest(f *fake, part string) bool {
	for _, r := range f.requests {
		if strings.Contains(r, part) {
			return true
		}
	}
	return false
}

func waitRequest(t *testing.T, f *fake, ok func() bool) {
	t.Helper()
	eventually(t, "the request came", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return ok()
	})
	time.Sleep(50 * time.Millisecond) // for the client to read the answer
}

// TestSecondCtrlC: it does not wait for the undoing.
func TestSecondCtrlC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	block := make(chan struct{})
	w.fake.slow = true
	w.fake.stuck = block
	defer close(block)
	cmd := w.command("vm", "run", "--", "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitRequest(t, w.fake, func() bool { return w.fake.run.End != "" })
	for range 2 {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // two signals at once are one
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("code %d", code)
	}
}

// TestSignalsReachTheCommand: also while stdin is open, and the command's end
// ends us.
func TestSignalsReachTheCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.script.Store(script(cat))
	cmd := w.command("vm", "exec", "web", "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(in, "x")
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	want := []string{"INT", "HUP", "QUIT", "USR1", "USR2", "TERM"}
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM} {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		eventually(t, want[i]+" came", func() bool {
			w.fake.mu.Lock()
			defer w.fake.mu.Unlock()
			return len(w.fake.signals) == i+1 && w.fake.signals[i] == want[i]
		})
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("code %d", code)
	}
}

// TestTerminal: raw while the command has it, its size passed on, restored at
// the end; what is typed after the end is left for the next reader.
func TestTerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.script.Store(script(func(f *fake, conn *websocket.Conn, req api.Exec) api.Exit {
		send(conn, api.ChannelStdout, []byte(fmt.Sprintf("tty %v %dx%d\n", req.TTY, req.Rows, req.Cols)))
		return cat(f, conn, req)
	}))
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	defer tty.Close()
	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: 33, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	before := termState(t, tty)
	cmd := w.command("vm", "exec", "web", "sh")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen := make([]byte, 0, 1024)
	readUntil := func(want string) {
		t.Helper()
		buf := make([]byte, 256)
		for !strings.Contains(string(screen), want) {
			n, err := ptmx.Read(buf)
			if err != nil {
				t.Fatalf("%v after %q", err, screen)
			}
			screen = append(screen, buf[:n]...)
		}
	}
	readUntil("tty true 33x99")
	eventually(t, "raw", func() bool { return termState(t, tty) != before })
	fmt.Fprint(ptmx, "\x03") // Ctrl-C is a byte for the command now
	readUntil("\x03")
	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: 10, Cols: 20}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "resized", func() bool {
		w.fake.mu.Lock()
		defer w.fake.mu.Unlock()
		return w.fake.resizes >= 2
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("code %d: %q", code, screen)
	}
	if termState(t, tty) != before {
		t.Error("the terminal was not restored")
	}
}

// TestBrokenPipe: a reader that has enough ends us as it ends any program.
func TestBrokenPipe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.script.Store(script(func(_ *fake, conn *websocket.Conn, _ api.Exec) api.Exit {
		for range 1000 {
			if conn.Write(context.Background(), websocket.MessageBinary, append([]byte{byte(api.ChannelStdout)}, make([]byte, 64<<10)...)) != nil {
				break
			}
		}
		return api.Exit{}
	}))
	cmd := w.command("vm", "exec", "web", "cat")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	_ = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGPIPE {
		t.Errorf("ended by %v", cmd.ProcessState)
	}
}

// A daemon that no longer listens may still close its store: it is gone when
// its lock is.
func TestHeld(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	if held(path) {
		t.Error("held by nobody")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if !held(path) {
		t.Error("not held")
	}
	f.Close()
	if held(path) {
		t.Error("held still")
	}
}

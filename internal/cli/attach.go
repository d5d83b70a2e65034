package cli

import (
	"context"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

// How long a daemon may take to hear of a cancelling, a cancelled creation to
// undo itself, and a command whose time is over to heed TERM.
const (
	cancelPatience = 5 * time.Second
	undoPatience   = 30 * time.Second
	killGrace      = 2 * time.Second
)

// attachment is one command in a VM with our streams on it.
type attachment struct {
	a        *app
	c        *client.Client
	st       *client.Stream
	tty      bool
	noStdin  bool
	timeout  time.Duration // of the whole, 0: none
	stdout   io.Writer
	stderr   io.Writer
	progress *ui.Progress
	term     *terminal

	mu        sync.Mutex
	operation string // the creation or start under way
	began     bool
	beganAt   time.Time
	started   api.Started
	why       error // why we ended it before it began, or its time was over
}

// attach carries the streams until the command ends. How it ended is in Exit;
// the error is banger's.
func (a *app) attach(ctx context.Context, c *client.Client, at *attachment, open func(context.Context) (*client.Stream, error)) (api.Exit, error) {
	at.a, at.c, at.term = a, c, a.newTerminal()
	if at.stdout == nil {
		at.stdout, at.stderr = a.env.Stdout, a.env.Stderr
	}
	st, err := open(ctx)
	if err != nil {
		return api.Exit{}, err
	}
	at.st = st
	at.progress = a.ui.NewProgress(false)
	closeProgress := sync.OnceFunc(at.progress.Close)
	defer closeProgress()

	more := []os.Signal{syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
	if at.tty {
		more = append(more, syscall.SIGWINCH)
	}
	sigs, release := a.takeSignals(more...)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		at.control(ctx, sigs, stop)
	}()
	defer func() {
		close(stop)
		<-stopped
		release()
	}()
	defer at.term.restore()

	streams := client.IO{Stdout: at.stdout, Stderr: at.stderr, OnProgress: at.onProgress}
	if !at.noStdin {
		in, done, err := a.stdin()
		if err != nil {
			st.Close()
			return api.Exit{}, err
		}
		defer done()
		streams.Stdin = in
	}
	streams.OnStarted = func(s api.Started) {
		closeProgress()
		at.onStarted(s)
	}
	exit, err := st.Copy(streams)
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.why != nil && (err != nil || api.KindOf(at.why) == api.KindTimeout) {
		return exit, at.why
	}
	return exit, err
}

// stdin is our stdin as a stream's input; done frees what it took.
func (a *app) stdin() (in io.Reader, done func(), err error) {
	f, ok := a.env.Stdin.(*os.File)
	if !ok {
		return a.env.Stdin, func() {}, nil
	}
	i, err := newInput(f)
	if err != nil {
		return nil, nil, err
	}
	return i, i.release, nil
}

func (at *attachment) onProgress(op api.Operation) {
	at.mu.Lock()
	at.operation = op.ID
	if client.Finished(op) {
		at.operation = ""
	}
	at.mu.Unlock()
	at.progress.Update(op.Target, op)
}

func (at *attachment) onStarted(s api.Started) {
	at.mu.Lock()
	at.began, at.beganAt, at.started = true, time.Now(), s
	cancelled := at.why != nil
	at.mu.Unlock()
	if cancelled {
		at.st.Close() // too late to undo: the command gets HUP, the VM ends as asked
		return
	}
	if at.tty {
		if err := at.term.raw(); err != nil {
			at.a.ui.Warn("%v", err)
		}
		at.resize()
	}
}

func (at *attachment) resize() {
	rows, cols := at.term.dimensions()
	_ = at.st.Resize(rows, cols) // a broken stream shows in Copy
}

// control passes signals on to the command; before it began it cancels instead.
// It also keeps the time.
func (at *attachment) control(ctx context.Context, sigs <-chan os.Signal, stop <-chan struct{}) {
	var deadline, kill, patience <-chan time.Time
	if at.timeout > 0 {
		t := time.NewTimer(at.timeout)
		defer t.Stop()
		deadline = t.C
	}
	after := func(d time.Duration) <-chan time.Time {
		if kill != nil || patience != nil {
			return nil
		}
		return time.After(d)
	}
	for {
		select {
		case <-stop:
			return
		case sig := <-sigs:
			if at.hasBegun() {
				at.pass(sig)
				continue
			}
			switch sig {
			case syscall.SIGWINCH, syscall.SIGUSR1, syscall.SIGUSR2:
				continue
			}
			if patience == nil {
				patience = after(undoPatience)
			}
			at.giveUp(ctx, api.Errorf(api.KindCancelled, "cancelled"))
		case <-deadline:
			err := api.Errorf(api.KindTimeout, "not done within %s", at.timeout)
			if at.hasBegun() {
				at.end(err)
				_ = at.st.Signal("TERM")
				kill = after(killGrace)
			} else {
				patience = after(undoPatience)
				at.giveUp(ctx, err)
			}
		case <-kill:
			_ = at.st.Signal("KILL")
		case <-patience:
			at.st.Close()
		}
	}
}

func (at *attachment) hasBegun() bool {
	at.mu.Lock()
	defer at.mu.Unlock()
	return at.began
}

// end takes note of why we end the command; false when that was known already.
func (at *attachment) end(why error) bool {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.why != nil {
		return false
	}
	at.why = why
	return true
}

// giveUp cancels what is under way and lets the stream tell when it is undone.
// A second call, or nothing to cancel, closes the stream.
func (at *attachment) giveUp(ctx context.Context, why error) {
	first := at.end(why)
	at.mu.Lock()
	id := at.operation
	at.mu.Unlock()
	if !first || id == "" {
		at.st.Close()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cancelPatience)
	defer cancel()
	if _, err := at.c.CancelOperation(ctx, id); err != nil {
		at.st.Close()
	}
}

// pass sends a signal on to the command.
func (at *attachment) pass(sig os.Signal) {
	if sig == syscall.SIGWINCH {
		at.resize()
		return
	}
	if s, ok := sig.(syscall.Signal); ok {
		if name := unix.SignalName(s); len(name) > 3 {
			_ = at.st.Signal(name[3:]) // a broken stream shows in Copy
		}
	}
}

// commandEnd turns how a command ended into our own end, and says why one could
// not be run.
func (a *app) commandEnd(exit api.Exit, timeout time.Duration) error {
	if exit.TimedOut {
		return api.Errorf(api.KindTimeout, "the command was ended: it did not end by itself within %s", timeout)
	}
	if exit.Message != "" {
		kind := api.KindInvalid
		if exit.Code == 127 {
			kind = api.KindNotFound
		}
		a.ui.Error(api.Errorf(kind, "%s", exit.Message), a.wantsJSONErrors(), false)
	}
	if exit.Code != 0 {
		return exitStatus(exit.Code)
	}
	return nil
}

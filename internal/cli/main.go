package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/term"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
	"github.com/bangervm/banger/internal/config"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/version"
)

// Programs are the other two programs in the same binary.
type Programs struct {
	// Daemon runs until ctx is done or the daemon was told to stop.
	Daemon func(ctx context.Context) error
	// Keeper owns one VM until it ends; args follow the word keeper.
	Keeper func(args []string) error
	// Cell becomes a VMM in namespaces of its own, and returns if it cannot.
	Cell func() error
}

// Env is the world a command runs in.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Programs       Programs
	// Config reads the configuration, for the defaults that help shows; nil
	// shows them as they are on any host.
	Config func(layout.Layout) (config.Config, error)
}

// app is one call of banger.
type app struct {
	env      Env
	ui       *ui.Console
	layout   layout.Layout
	version  version.Info
	startsUp bool // whether a daemon that does not answer is started
	client   *client.Client
	// execLike is set by commands whose exit code is that of a command in a VM:
	// a failure of banger itself is then 125.
	execLike bool
	// taken is set while a command handles signals itself.
	taken atomic.Bool
}

// exitStatus ends the call with a code and nothing more to say.
type exitStatus int

func (e exitStatus) Error() string { return "exit status" }

// Main runs one call and gives its exit code.
func Main(env Env) int {
	if len(env.Args) > 0 {
		switch env.Args[0] {
		case "keeper":
			return keeperMain(env)
		case "cell":
			return cellMain(env)
		}
	}
	a := newApp(env)
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := a.cancelOnSignal(cancel)
	err := a.execute(ctx)
	stop()
	cancel(nil)
	code := a.report(err)
	if a.client != nil {
		if a.client.DaemonBuild() != "" {
			a.ui.Warn("the daemon is of another build than this command; to fix it: banger daemon restart")
		}
		a.client.Close()
	}
	return code
}

func keeperMain(env Env) int {
	if env.Programs.Keeper == nil {
		return 1
	}
	if err := env.Programs.Keeper(env.Args[1:]); err != nil {
		(&ui.Console{Err: env.Stderr}).Error(err, true, false)
		return api.KindOf(err).ExitCode()
	}
	return 0
}

// cellMain says nothing itself: what stops it is told to the one who waits.
func cellMain(env Env) int {
	if env.Programs.Cell == nil {
		return 1
	}
	return api.KindOf(env.Programs.Cell()).ExitCode()
}

func newApp(env Env) *app {
	a := &app{env: env, version: version.Current(), startsUp: true}
	a.ui = &ui.Console{
		Out: env.Stdout, Err: env.Stderr,
		OutTTY: isTerminal(env.Stdout), ErrTTY: isTerminal(env.Stderr),
		NoColor: env.Getenv("NO_COLOR") != "" || env.Getenv("TERM") == "dumb",
		Width: func() int {
			if f, ok := env.Stderr.(*os.File); ok {
				if w, _, err := term.GetSize(int(f.Fd())); err == nil {
					return w
				}
			}
			return 80
		},
	}
	return a
}

// isTerminal says whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) execute(ctx context.Context) error {
	root := a.root()
	root.SetArgs(a.env.Args)
	root.SetIn(a.env.Stdin)
	root.SetOut(a.env.Stdout)
	root.SetErr(a.env.Stderr)
	return root.ExecuteContext(ctx)
}

// report prints what went wrong and gives the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	kind := api.KindOf(err)
	code := kind.ExitCode()
	if a.execLike && kind != api.KindCancelled && kind != api.KindTimeout {
		code = 125
	}
	a.ui.Error(err, a.wantsJSONErrors(), a.execLike)
	return code
}

// wantsJSONErrors looks at the words themselves: flags may be what is wrong.
func (a *app) wantsJSONErrors() bool {
	if a.ui.JSON || a.env.Getenv("BANGER_ERROR_FORMAT") == "json" {
		return true
	}
	for _, arg := range a.env.Args {
		switch arg {
		case "--":
			return false
		case "--json", "--json=true":
			// vm exec passes on what follows its VM; ui.JSON covers the rest there.
			return !a.execLike
		}
	}
	return false
}

// endSignals are those that ask a program to end.
func endSignals() []os.Signal {
	var sigs []os.Signal
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup, background jobs
			sigs = append(sigs, s)
		}
	}
	return sigs
}

// cancelOnSignal cancels the call at the first signal, and ends the process at
// the second, unless a command took the signals. The returned function stops
// it.
func (a *app) cancelOnSignal(cancel context.CancelCauseFunc) (stop func()) {
	sigs := endSignals()
	if len(sigs) == 0 {
		return func() {} // Notify with no signals would mean all
	}
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, sigs...)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		seen := 0
		for {
			select {
			case <-quit:
				return
			case <-ch:
				if a.taken.Load() {
					continue
				}
				if seen++; seen > 1 {
					os.Exit(api.KindCancelled.ExitCode())
				}
				cancel(api.Errorf(api.KindCancelled, "cancelled"))
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(quit)
		<-done
	}
}

// takeSignals hands the ending signals, and more, to the caller until the
// returned function is called.
func (a *app) takeSignals(more ...os.Signal) (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 16)
	a.taken.Store(true)
	if sigs := append(endSignals(), more...); len(sigs) > 0 {
		signal.Notify(ch, sigs...)
	}
	return ch, func() {
		signal.Stop(ch)
		a.taken.Store(false)
	}
}

// connect gives the client; the first request dials, and starts a daemon where
// none answers.
func (a *app) connect() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	if err := a.resolveLayout(); err != nil {
		return nil, err
	}
	a.client = client.New(client.Options{
		Socket: a.layout.DaemonSocket(),
		Dial:   a.dial,
		Build:  a.version.Build,
	})
	return a.client, nil
}

func (a *app) resolveLayout() error {
	var err error
	a.layout, err = layout.Resolve(a.env.Getenv, os.Geteuid())
	return err
}

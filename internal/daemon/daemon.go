package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/bangervm/banger/internal/config"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/version"
)

// Options are what a daemon is started with.
type Options struct {
	Layout layout.Layout
	Config config.Config
	Info   version.Info // zero: the running binary's
	Getenv func(string) string
	Log    *slog.Logger
}

// Run is a daemon's life. It takes the root's lock, answers at once to
// /v1/version and /v1/daemon, lets everything else wait until unfinished
// operations and running VMs are taken over, and serves until ctx ends, a
// signal comes or a client says stop. VMs run on.
func Run(ctx context.Context, o Options) error {
	ctx, unsign := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer unsign()
	defer ignorePipe()()
	debug.SetGCPercent(50) // a small heap matters more than a little time

	if o.Info == (version.Info{}) {
		o.Info = version.Current()
	}
	if err := o.Layout.Ensure(); err != nil {
		return err
	}
	held, err := takeLock(ctx, o.Layout, lockPatience)
	if err != nil {
		return err
	}
	defer held.Close()
	ln, err := listen(o.Layout)
	if err != nil {
		return err
	}
	leaving, stop := context.WithCancel(ctx)
	defer stop()
	s := newServer(&server{
		log: o.Log, info: o.Info, layout: o.Layout, config: o.Config.Values,
		started: time.Now(), pid: os.Getpid(), leaving: leaving, stop: stop,
	})
	return serve(s, ln, func() (services, func(context.Context) error, error) { return assemble(leaving, o) })
}

// ignorePipe keeps a closed standard output from ending the process. The signal
// is caught rather than ignored, so that the programs we start do not inherit
// that.
func ignorePipe() func() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGPIPE)
	return func() { signal.Stop(c) }
}

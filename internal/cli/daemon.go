package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) daemon() *cobra.Command {
	return parent(&cobra.Command{Use: "daemon", Short: "The process that owns the machines", Example: "  banger daemon status\n  banger daemon restart"},
		a.daemonRun(), a.daemonStatus(), a.daemonStop(), a.daemonRestart())
}

func (a *app) daemonRun() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run [flags]", Short: "Run the daemon in the foreground",
		Long: "Run the daemon in the foreground. Other commands start one in the background when none answers.", Example: "  banger daemon run", Args: argCount(0, 0),
	}
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		if a.env.Programs.Daemon == nil {
			return api.Errorf(api.KindUnsupported, "cannot run the daemon: it is not in this program")
		}
		return a.env.Programs.Daemon(ctx)
	})
}

func (a *app) daemonStatus() *cobra.Command {
	cmd := &cobra.Command{Use: "status [flags]", Short: "Show the daemon", Example: "  banger daemon status", Args: argCount(0, 0)}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		a.startsUp = false
		c, err := a.connect()
		if err != nil {
			return err
		}
		d, err := c.Daemon(ctx)
		if err != nil {
			return err
		}
		return a.ui.Answer(d, func() error {
			return a.ui.Fields([][2]string{
				{"pid", fmt.Sprint(d.PID)}, {"version", d.Version + " (build " + d.Build + ")"}, {"socket", d.Socket}, {"state", d.StateDir},
				{"vms", fmt.Sprint(d.VMs)}, {"operations", fmt.Sprintf("%d running", d.Operations)}, {"dns", d.DNSAddress},
				{"up", ui.Ago(time.Now(), d.StartedAt)},
			})
		})
	})
}

// daemonLeaveTimeout is how long a daemon may take to leave.
const daemonLeaveTimeout = 60 * time.Second

func (a *app) daemonStop() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stop [flags]", Short: "Stop the daemon; machines run on", Example: "  banger daemon stop", Args: argCount(0, 0),
	}
	timeout := daemonTimeoutFlag(cmd)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		stopped, err := a.stopDaemon(ctx, *timeout)
		if err != nil {
			return err
		}
		if !stopped {
			a.ui.Note("no daemon runs")
		}
		a.client.Close()
		a.client = nil // of what build it was matters no more
		return a.printChanged(stopped)
	})
}

func (a *app) daemonRestart() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restart [flags]", Short: "Stop the daemon and start one of this build; machines run on", Example: "  banger daemon restart", Args: argCount(0, 0),
	}
	timeout := daemonTimeoutFlag(cmd)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		if _, err := a.stopDaemon(ctx, *timeout); err != nil {
			return err
		}
		a.client.Close()
		a.client, a.startsUp = nil, true
		c, err := a.connect()
		if err != nil {
			return err
		}
		if _, err := c.Daemon(ctx); err != nil {
			return err
		}
		return a.printChanged(true)
	})
}

func daemonTimeoutFlag(cmd *cobra.Command) *time.Duration {
	timeout := daemonLeaveTimeout
	cmd.Flags().Var(&durationFlag{d: &timeout, text: "60s"}, "timeout", "give up waiting after this long (exit code 124)")
	return &timeout
}

// printChanged answers where there is nothing to show but whether anything was
// done.
func (a *app) printChanged(changed bool) error {
	return a.ui.Answer(struct {
		Changed bool `json:"changed"`
	}{changed}, func() error { return nil })
}

// stopDaemon asks the daemon to leave and waits until it is gone; false when
// none was there.
func (a *app) stopDaemon(ctx context.Context, timeout time.Duration) (bool, error) {
	a.startsUp = false
	c, err := a.connect()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := c.StopDaemon(ctx); err != nil {
		if client.NobodyListens(err) {
			return false, nil
		}
		return false, err
	}
	// The daemon closes our connections as it leaves; a new one tells whether it
	// still listens. Its lock goes last, when its store is closed.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := client.DialSocket(ctx, a.layout.DaemonSocket())
		if err != nil && client.NobodyListens(err) && !held(a.layout.DaemonLock()) {
			return true, nil
		}
		if err == nil {
			conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, api.Errorf(api.KindTimeout, "the daemon has not left within %s, see %s", timeout, a.layout.DaemonLog())
		}
	}
}

// held says whether a daemon has the lock: it may be on its way out.
func held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // there never was one
	}
	defer f.Close() // and the lock with it
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

// versionPatience is how long `version` waits for a daemon that is there.
const versionPatience = 500 * time.Millisecond

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version [flags]", Short: "Show the version of this command and of the daemon, if one runs", Example: "  banger version", Args: argCount(0, 0),
	}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		v := api.Version{Version: a.version.Version, Build: a.version.Build, Go: a.version.Go}
		a.startsUp = false
		if c, err := a.connect(); err == nil {
			ctx, cancel := context.WithTimeout(ctx, versionPatience)
			defer cancel()
			if d, err := c.Daemon(ctx); err == nil {
				v.Daemon = &d
			}
		}
		return a.ui.Answer(v, func() error {
			if err := a.ui.Println("banger " + v.Version + " (build " + v.Build + ", " + v.Go + ")"); err != nil {
				return err
			}
			if v.Daemon == nil {
				return nil
			}
			return a.ui.Println("daemon " + v.Daemon.Version + " (build " + v.Daemon.Build + ")")
		})
	})
}

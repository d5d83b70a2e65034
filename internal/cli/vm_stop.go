package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) vmStop() *cobra.Command {
	var w waiting
	var grace time.Duration
	cmd := &cobra.Command{
		Use: "stop VM… [flags]", Short: "Stop machines in good order",
		Long:    "Stop machines: processes are asked to end, disks flushed and unmounted, the power switched off. What does not end in time is killed.",
		Example: "  banger vm stop web\n  banger vm stop --timeout 60s web db",
		Args:    argCount(1, -1), ValidArgsFunction: a.completeVMs(-1),
	}
	w.flags(cmd, false)
	cmd.Flags().Var(&durationFlag{d: &grace}, "timeout", "kill the machine when it has not stopped by then (default 10s, more under emulation)")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		req := api.StopVM{TimeoutMS: grace.Milliseconds()}
		return a.vmOperations(ctx, args, w, func(ctx context.Context, c *client.Client, ref string) (api.Operation, error) {
			return c.StopVM(ctx, ref, req)
		})
	})
}

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

func (a *app) vmWait() *cobra.Command {
	target := api.WaitRunning
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait VM [flags]", Short: "Wait until a machine runs, is stopped or ended",
		Example: "  banger vm wait web --for running\n  banger vm wait web --for stopped --timeout 5m",
		Args:    argCount(1, 1), ValidArgsFunction: a.completeVMs(1),
	}
	cmd.Flags().Var(&choice{value: &target, allowed: []string{api.WaitRunning, api.WaitStopped, api.WaitExit}}, "for", "what to wait for")
	cmd.Flags().Var(&durationFlag{d: &timeout}, "timeout", "give up after this long (exit code 124)")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		vm, err := c.WaitVM(ctx, args[0], target, timeout)
		if err != nil {
			return err
		}
		return a.printVM(vm)
	})
}

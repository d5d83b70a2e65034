package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) vmStart() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: "start VM… [flags]", Short: "Start machines", Example: "  banger vm start web",
		Args: argCount(1, -1), ValidArgsFunction: a.completeVMs(-1),
	}
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		return a.vmOperations(ctx, args, w, func(ctx context.Context, c *client.Client, ref string) (api.Operation, error) {
			return c.StartVM(ctx, ref)
		})
	})
}

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) vmRestart() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: "restart VM… [flags]", Short: "Stop machines and start them again", Example: "  banger vm restart web",
		Args: argCount(1, -1), ValidArgsFunction: a.completeVMs(-1),
	}
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		return a.vmOperations(ctx, args, w, func(ctx context.Context, c *client.Client, ref string) (api.Operation, error) {
			return c.RestartVM(ctx, ref)
		})
	})
}

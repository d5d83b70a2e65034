package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) kernelPull() *cobra.Command {
	var w waiting
	var force bool
	cmd := &cobra.Command{
		Use: "pull NAME [flags]", Short: "Get a kernel", Example: "  banger kernel pull debian-bookworm-cloud", Args: argCount(1, 1),
		ValidArgsFunction: a.complete(1, catalogNames((*client.Client).KernelCatalog)),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "make it anew though it is there")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		return made(a, ctx, args[0], w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.PullKernel(ctx, api.Pull{Name: args[0], Force: force})
		}, func(k api.Kernel) string {
			if !k.Changed {
				a.ui.Note("kernel %s is there already", ui.Clean(k.Name))
			}
			return k.Name
		})
	})
}

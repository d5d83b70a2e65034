package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

func (a *app) vmRename() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rename VM NAME [flags]", Short: "Give a machine another name", Example: "  banger vm rename web shop",
		Args: argCount(2, 2), ValidArgsFunction: a.completeVMs(1),
	}
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		vm, err := c.RenameVM(ctx, args[0], api.RenameVM{Name: args[1]})
		if err != nil {
			return err
		}
		return a.printVM(vm)
	})
}

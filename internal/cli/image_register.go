package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) imageRegister() *cobra.Command {
	var w waiting
	var req api.RegisterImage
	cmd := &cobra.Command{
		Use: "register FILE --name NAME [flags]", Short: "Use a root file system of your own, where it is",
		Long: "Make an image of an ext4 root file system of your own. The file stays where it is and yours: it is read, never\n" +
			"changed, never deleted, and machines made from it are refused a start once it changed or is gone. To have banger keep\n" +
			"a copy, promote the image.",
		Example: "  banger image register ~/images/root.ext4 --name mine\n  banger image register root.ext4 --name mine --kernel debian-bookworm-cloud --work-seed ~/dotfiles",
		Args:    argCount(1, 1),
	}
	f := cmd.Flags()
	ownFlags(f, &req.Name, &req.Kernel, &req.WorkSeed, &req.Replace)
	f.StringVar(&req.Initrd, "initrd", "", "an initrd of your own: not supported, and said so")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		err := ownReady("register", req.Name, &req.WorkSeed)
		if err != nil {
			return err
		}
		if req.Root, err = absolute(args[0]); err != nil {
			return err
		}
		return made(a, ctx, args[0], w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.RegisterImage(ctx, req)
		}, a.tellImage)
	})
}

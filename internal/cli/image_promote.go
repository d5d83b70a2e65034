package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) imagePromote() *cobra.Command {
	var w waiting
	var req api.PromoteImage
	cmd := &cobra.Command{
		Use: "promote IMAGE [flags]", Short: "Keep a copy of a registered image",
		Long: "Copy the file of a registered image under banger's management, sharing its blocks where the file system can. The\n" +
			"image and its machines stay what they are, and need your file no more; it is left as it is.",
		Example: "  banger image promote mine",
		Args:    argCount(1, 1), ValidArgsFunction: a.complete(1, imageNames),
	}
	cmd.Flags().StringVar(&req.WorkSeed, "work-seed", "", "folder or tar that new homes are filled from; else what the image has")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		var err error
		if req.WorkSeed, err = absolute(req.WorkSeed); err != nil {
			return err
		}
		return made(a, ctx, args[0], w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.PromoteImage(ctx, args[0], req)
		}, a.tellImage)
	})
}

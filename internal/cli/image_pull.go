package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) imagePull() *cobra.Command {
	var w waiting
	var req api.PullImage
	cmd := &cobra.Command{
		Use: "pull REF [flags]", Short: "Get an image",
		Long: "Get an image: a name of the catalog, else a registry's reference, by tag or digest. Docker's short names are\n" +
			"understood here: alpine is docker.io/library/alpine:latest. Pulled again, the same content changes nothing; a tag\n" +
			"that means something else by now moves, unless the image was given a name with --name. VMs keep their image.",
		Example: "  banger image pull debian-bookworm\n  banger image pull ghcr.io/acme/app:v1 --name app\n  banger image pull alpine@sha256:…",
		Args:    argCount(1, 1), ValidArgsFunction: a.complete(1, catalogNames((*client.Client).ImageCatalog)),
	}
	f := cmd.Flags()
	f.StringVar(&req.As, "name", "", "the name it gets here; else its own")
	f.BoolVar(&req.Replace, "replace", false, "let the name pass from another image to this one")
	f.BoolVarP(&req.Force, "force", "f", false, "make it anew though it is there")
	f.StringVar(&req.Platform, "platform", "", "os/arch to take where there are several; this host's by default")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		req.Name = args[0]
		return made(a, ctx, args[0], w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.PullImage(ctx, req)
		}, a.tellImage)
	})
}

// tellImage says what became of an image and gives its name.
func (a *app) tellImage(im api.Image) string {
	switch {
	case !im.Changed:
		a.ui.Note("image %s is there already", ui.Clean(im.Name))
	case im.PreviousDigest != "":
		a.ui.Note("image %s moved from %s to %s; VMs keep the former", ui.Clean(im.Name), shortDigest(im.PreviousDigest), shortDigest(im.Digest))
	}
	return im.Name
}

package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) imageImport() *cobra.Command {
	var w waiting
	var req api.ImportImage
	cmd := &cobra.Command{
		Use: "import FILE|-|DIR --name NAME [flags]", Short: "Make an image from a file",
		Long: "Make an image from an archive of docker save, an OCI layout (a folder or a tar of it), or the tar of a root file\n" +
			"system, plain or compressed; - reads it from stdin.",
		Example: "  docker save app | banger image import - --name app\n  banger image import ./layout --name app\n  banger image import rootfs.tar.zst --name mine --kernel debian-bookworm-cloud",
		Args:    argCount(1, 1),
	}
	f := cmd.Flags()
	ownFlags(f, &req.Name, &req.Kernel, &req.WorkSeed, &req.Replace)
	f.StringVar(&req.Reference, "reference", "", "which image is meant, where the archive holds several")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		err := ownReady("import", req.Name, &req.WorkSeed)
		if err != nil {
			return err
		}
		if args[0] == "-" {
			if isTerminal(a.env.Stdin) {
				return api.Errorf(api.KindInvalid, "cannot import an image from a terminal: - reads an archive from stdin").
					WithHint("banger image import --help")
			}
			return made(a, ctx, "stdin", w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
				return c.ImportImageStream(ctx, req, io.MultiReader(a.env.Stdin))
			}, a.tellImage)
		}
		if req.Path, err = absolute(args[0]); err != nil {
			return err
		}
		return made(a, ctx, args[0], w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.ImportImage(ctx, req)
		}, a.tellImage)
	})
}

// ownFlags are those of all commands that make an image of what the user has.
func ownFlags(f *pflag.FlagSet, name, kernel, seed *string, replace *bool) {
	f.StringVar(name, "name", "", "the name it gets here (needed)")
	f.StringVar(kernel, "kernel", "", "the kernel it boots; else the default")
	f.StringVar(seed, "work-seed", "", "folder or tar that new homes are filled from; else the image's /root")
	f.BoolVar(replace, "replace", false, "let the name pass from another image to this one")
}

// ownReady checks those flags, and makes the seed's path whole for the daemon.
func ownReady(verb, name string, seed *string) (err error) {
	if err := needName(name, verb); err != nil {
		return err
	}
	*seed, err = absolute(*seed)
	return err
}

// needName says that a name must be given.
func needName(name, verb string) error {
	if name != "" {
		return nil
	}
	return api.Errorf(api.KindInvalid, "cannot %s an image without a name: give --name NAME", verb).WithHint("banger image %s --help", verb)
}

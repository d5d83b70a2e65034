package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) imageShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show IMAGE… [flags]", Aliases: []string{"inspect"}, Short: "Show images", Example: "  banger image show debian-bookworm",
		Args: argCount(1, -1), ValidArgsFunction: a.complete(-1, imageNames),
	}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return showAll(a, args, func(ref string) (api.Image, error) { return c.Image(ctx, ref) }, func(im api.Image) error {
			if im.Error != nil {
				a.ui.Note("%s", ui.Clean(im.Error.Message))
			}
			return a.ui.Fields([][2]string{
				{"name", im.Name}, {"id", im.ID}, {"names", strings.Join(im.Names, ", ")}, {"digest", im.Digest}, {"kind", im.Kind}, {"reference", im.Reference}, {"reference digest", im.ReferenceDigest}, {"kernel", im.Kernel},
				{"size", ui.Bytes(im.SizeBytes)}, {"created", im.CreatedAt.Local().Format("2006-01-02 15:04:05")},
				{"used by", strings.Join(im.UsedBy, ", ")}, {"env", strings.Join(im.Config.Env, " ")}, {"workdir", im.Config.Workdir},
				{"user", im.Config.User}, {"entrypoint", strings.Join(im.Config.Entrypoint, " ")}, {"cmd", strings.Join(im.Config.Cmd, " ")},
				{"source", sorted(im.Source)},
			})
		})
	})
}

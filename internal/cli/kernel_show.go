package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) kernelShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show KERNEL… [flags]", Aliases: []string{"inspect"}, Short: "Show kernels", Example: "  banger kernel show debian-bookworm-cloud",
		Args: argCount(1, -1), ValidArgsFunction: a.complete(-1, kernelNames),
	}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return showAll(a, args, func(ref string) (api.Kernel, error) { return c.Kernel(ctx, ref) }, func(k api.Kernel) error {
			fields := [][2]string{
				{"name", k.Name}, {"version", k.Version}, {"arch", k.Arch}, {"digest", k.Digest}, {"size", ui.Bytes(k.SizeBytes)},
				{"created", k.CreatedAt.Local().Format("2006-01-02 15:04:05")}, {"used by", strings.Join(k.UsedBy, ", ")}, {"source", sorted(k.Source)},
			}
			for _, w := range k.Warnings {
				fields = append(fields, [2]string{"warning", w})
			}
			return a.ui.Fields(fields)
		})
	})
}

func kernelNames(ctx context.Context, c *client.Client) ([]string, error) {
	kernels, err := c.Kernels(ctx)
	var names []string
	for _, k := range kernels {
		names = append(names, k.Name)
	}
	return names, err
}

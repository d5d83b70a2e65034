package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) kernel() *cobra.Command {
	return parent(&cobra.Command{Use: "kernel", Short: "Kernels that machines boot", Example: "  banger kernel list\n  banger kernel catalog"},
		a.kernelList(), a.kernelShow(), a.kernelPull(), a.kernelCatalog())
}

func (a *app) kernelList() *cobra.Command {
	return listLocal(a, "kernel", func(ctx context.Context, c *client.Client) ([]api.Kernel, error) { return c.Kernels(ctx) },
		[]string{"NAME", "VERSION", "ARCH", "SIZE", "CREATED", "USED BY", "DIGEST"},
		func(k api.Kernel) string { return k.Name },
		func(k api.Kernel) []any {
			return []any{k.Name, k.Version, k.Arch, ui.Bytes(k.SizeBytes), ui.Ago(time.Now(), k.CreatedAt), count(len(k.UsedBy), "VM"), shortDigest(k.Digest)}
		})
}

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
			return a.ui.Fields([][2]string{
				{"name", k.Name}, {"version", k.Version}, {"arch", k.Arch}, {"digest", k.Digest}, {"size", ui.Bytes(k.SizeBytes)},
				{"created", k.CreatedAt.Local().Format("2006-01-02 15:04:05")}, {"used by", strings.Join(k.UsedBy, ", ")}, {"source", sorted(k.Source)},
			})
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

func (a *app) kernelCatalog() *cobra.Command {
	return a.catalog("kernel", func(ctx context.Context, c *client.Client) ([]api.CatalogEntry, error) { return c.KernelCatalog(ctx) })
}

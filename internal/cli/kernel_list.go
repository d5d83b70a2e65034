package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) kernelList() *cobra.Command {
	return listLocal(a, "kernel", func(ctx context.Context, c *client.Client) ([]api.Kernel, error) { return c.Kernels(ctx) },
		[]string{"NAME", "VERSION", "ARCH", "KIND", "SIZE", "CREATED", "USED BY", "DIGEST"},
		func(k api.Kernel) string { return k.Name },
		func(k api.Kernel) []any {
			return []any{k.Name, k.Version, k.Arch, k.Source["kind"], ui.Bytes(k.SizeBytes), ui.Ago(time.Now(), k.CreatedAt), count(len(k.UsedBy), "VM"), shortDigest(k.Digest)}
		})
}

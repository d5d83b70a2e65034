package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) kernelCatalog() *cobra.Command {
	return a.catalog("kernel", func(ctx context.Context, c *client.Client) ([]api.CatalogEntry, error) { return c.KernelCatalog(ctx) })
}

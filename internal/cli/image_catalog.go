package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

func (a *app) imageCatalog() *cobra.Command {
	return a.catalog("image", func(ctx context.Context, c *client.Client) ([]api.CatalogEntry, error) { return c.ImageCatalog(ctx) })
}

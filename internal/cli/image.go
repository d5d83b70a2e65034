package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/client"
)

func (a *app) image() *cobra.Command {
	return parent(&cobra.Command{Use: "image", Short: "Images that machines are made from", Example: "  banger image list\n  banger image catalog\n  banger image pull debian-bookworm"},
		a.imageList(), a.imageShow(), a.imagePull(), a.imageImport(), a.imageBundle(), a.imageRegister(), a.imagePromote(), a.imageDelete(), a.imagePrune(), a.imageCatalog())
}

func imageNames(ctx context.Context, c *client.Client) ([]string, error) {
	images, err := c.Images(ctx)
	var names []string
	for _, im := range images {
		if im.Name != "" {
			names = append(names, im.Name)
		}
	}
	return names, err
}

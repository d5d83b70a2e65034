package cli

import (
	"github.com/spf13/cobra"

	"github.com/bangervm/banger/client"
)

func (a *app) imageCatalog() *cobra.Command {
	return a.catalog("image", (*client.Client).ImageCatalog, (*client.Client).RefreshImageCatalog)
}

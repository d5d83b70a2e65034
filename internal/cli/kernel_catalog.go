package cli

import (
	"github.com/spf13/cobra"

	"github.com/bangervm/banger/client"
)

func (a *app) kernelCatalog() *cobra.Command {
	return a.catalog("kernel", (*client.Client).KernelCatalog, (*client.Client).RefreshKernelCatalog)
}

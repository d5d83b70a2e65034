package cli

import "github.com/spf13/cobra"

func (a *app) kernel() *cobra.Command {
	return parent(&cobra.Command{Use: "kernel", Short: "Kernels that machines boot", Example: "  banger kernel list\n  banger kernel catalog"},
		a.kernelList(), a.kernelShow(), a.kernelPull(), a.kernelImport(), a.kernelDelete(), a.kernelCatalog())
}

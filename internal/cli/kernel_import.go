package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) kernelImport() *cobra.Command {
	var w waiting
	var req api.ImportKernel
	cmd := &cobra.Command{
		Use: "import PATH --name NAME [flags]", Short: "Make a kernel of a package, a folder or a file of yours",
		Long: `Make a kernel of what you have: a Debian package (linux-image-*.deb), a folder with a kernel and its modules (an unpacked package, a root with boot and
lib/modules, what make modules_install made with a kernel put beside it), a bzImage or a vmlinux. It is copied; what you have is left alone. Whether a machine can
boot with it is checked, and what it lacks is named.`,
		Example: `  banger kernel import linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb --name mine
  banger kernel import ~/src/linux/arch/x86/boot/bzImage --name mine
  banger kernel import /boot/vmlinuz-6.1.0-56-amd64 --modules /lib/modules/6.1.0-56-amd64 --name host
  banger vm run --rm --kernel mine -- uname -r`,
		Args: argCount(1, 1),
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "name of the kernel, 1 to 63 of a-z 0-9 -")
	cmd.Flags().StringVar(&req.Modules, "modules", "", "folder or package with the modules, for a PATH that has none")
	cmd.Flags().BoolVar(&req.Replace, "replace", false, "let the name pass from another kernel; machines keep theirs")
	cmd.Flags().BoolVar(&req.Unchecked, "unchecked", false, "take it though it seems to lack what machines need")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		if req.Name == "" {
			return api.Errorf(api.KindInvalid, "cannot import kernel: no name given").WithHint("banger kernel import %s --name mine", args[0])
		}
		if args[0] == "-" {
			return api.Errorf(api.KindInvalid, "cannot import kernel from standard input: a file or a folder is wanted").WithHint("banger kernel import --help")
		}
		var err error
		if req.Path, err = absolute(args[0]); err != nil {
			return err
		}
		if req.Modules, err = absolute(req.Modules); err != nil {
			return err
		}
		return made(a, ctx, req.Name, w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.ImportKernel(ctx, req)
		}, func(k api.Kernel) string {
			if !k.Changed {
				a.ui.Note("kernel %s is there already", ui.Clean(k.Name))
			}
			for _, warning := range k.Warnings {
				a.ui.Note("kernel %s: %s", ui.Clean(k.Name), ui.Clean(warning))
			}
			return k.Name
		})
	})
}

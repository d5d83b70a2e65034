package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) system() *cobra.Command {
	return parent(&cobra.Command{Use: "system", Short: "What banger has on this host", Example: "  banger system fetch-firecracker"},
		a.fetchFirecracker())
}

func (a *app) fetchFirecracker() *cobra.Command {
	var w waiting
	var req api.FetchFirecracker
	cmd := &cobra.Command{
		Use: "fetch-firecracker [flags]", Short: "Fetch Firecracker, checked by its digest",
		Long: `Fetch a release of Firecracker, check the digest of the program in it, and install it in banger's own state folder, where it is found when there is none in PATH
and firecracker_bin names none. Which release: --url with --digest, else firecracker_url with firecracker_digest of the configuration, else the official one pinned in
this version. An address without TLS is taken on this host's loopback only. Nothing is ever fetched without this command.`,
		Example: `  banger system fetch-firecracker
  banger system fetch-firecracker --url https://mirror.example/firecracker-v1.14.0-x86_64.tgz --digest sha256:…`,
		Args: argCount(0, 0),
	}
	cmd.Flags().StringVar(&req.URL, "url", "", "address of the release's archive, or of the program itself")
	cmd.Flags().StringVar(&req.Digest, "digest", "", "digest of the program firecracker: sha256: and 64 hexadecimal digits")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		return made(a, ctx, "firecracker", w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.FetchFirecracker(ctx, req)
		}, func(f api.Firecracker) string {
			if !f.Changed {
				a.ui.Note("firecracker %s is there already", ui.Clean(f.Version))
			}
			return f.Path
		})
	})
}

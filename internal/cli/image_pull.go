package cli

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
	"github.com/bangervm/banger/internal/signature"
)

func (a *app) imagePull() *cobra.Command {
	var w waiting
	var req api.PullImage
	var publicKey string
	cmd := &cobra.Command{
		Use: "pull NAME|REF|FILE|URL [flags]", Short: "Get an image",
		Long: "Get an image: a name of the catalog, else a registry's reference, by tag or digest. Docker's short names are\n" +
			"understood here: alpine is docker.io/library/alpine:latest. Pulled again, the same content changes nothing; a tag\n" +
			"that means something else by now moves, unless the image was given a name with --name. VMs keep their image.\n" +
			"A path (with a / in it) or an https address is that of a bundle, see banger image bundle; it is named after the file.",
		Example: "  banger image pull debian-bookworm\n  banger image pull ghcr.io/acme/app:v1 --name app\n  banger image pull alpine@sha256:…\n  banger image pull ./app.tar.zst\n  banger image pull https://example.org/app.tar.zst --public-key RWQ…",
		Args:    argCount(1, 1), ValidArgsFunction: a.complete(1, catalogNames((*client.Client).ImageCatalog)),
	}
	f := cmd.Flags()
	f.StringVar(&req.As, "name", "", "the name it gets here; else its own")
	f.BoolVar(&req.Replace, "replace", false, "let the name pass from another image to this one")
	f.BoolVarP(&req.Force, "force", "f", false, "make it anew though it is there")
	f.StringVar(&req.Platform, "platform", "", "os/arch to take where there are several; this host's by default")
	f.StringVar(&publicKey, "public-key", "", "key of minisign, or a file with it, that must have signed the bundle")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		var err error
		if req.Name, err = bundlePath(args[0]); err != nil {
			return err
		}
		if req.PublicKey, err = keyText(publicKey); err != nil {
			return err
		}
		return made(a, ctx, args[0], w, func(ctx context.Context, c *client.Client) (api.Operation, error) {
			return c.PullImage(ctx, req)
		}, a.tellImage)
	})
}

// tellImage says what became of an image and gives its name.
func (a *app) tellImage(im api.Image) string {
	switch {
	case !im.Changed:
		a.ui.Note("image %s is there already", ui.Clean(im.Name))
	case im.PreviousDigest != "":
		a.ui.Note("image %s moved from %s to %s; VMs keep the former", ui.Clean(im.Name), shortDigest(im.PreviousDigest), shortDigest(im.Digest))
	}
	return im.Name
}

// bundlePath is a path that means a bundle as the daemon, which runs in another
// folder, understands it; what is no path stays.
func bundlePath(ref string) (string, error) {
	for _, p := range []string{"/", "./", "../"} {
		if strings.HasPrefix(ref, p) {
			return absolute(ref)
		}
	}
	return ref, nil
}

// keyText is the public key in a text, else in the file of that name.
func keyText(key string) (string, error) {
	if key == "" {
		return "", nil
	}
	if _, err := signature.ParseKey(key); err == nil {
		return key, nil
	}
	f, err := os.Open(key)
	if err != nil {
		return "", api.Errorf(api.KindInvalid, "cannot use public key %s: it is neither a key nor a file with one", ui.Clean(key)).WithHint("banger image pull --help")
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, signature.MaxBytes+1))
	if err != nil {
		return "", api.Errorf(api.KindInvalid, "cannot use public key %s: %w", ui.Clean(key), err)
	}
	k, err := signature.ParseKey(string(b))
	if err != nil {
		return "", api.Errorf(api.KindInvalid, "cannot use public key %s: %w", ui.Clean(key), err)
	}
	return k.String(), nil
}

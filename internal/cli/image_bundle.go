package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
	"github.com/bangervm/banger/internal/signature"
)

func (a *app) imageBundle() *cobra.Command {
	var w waiting
	var req api.BundleImage
	var out, signKey string
	cmd := &cobra.Command{
		Use: "bundle IMAGE -o FILE [flags]", Short: "Write an image to one file",
		Long: "Write an image to one file that banger image pull takes, from a path, a web server or a catalog. The same image gives\n" +
			"the same bytes. With --sign-key the signature is written to FILE.minisig; the password of the key is asked for, or taken\n" +
			"from BANGER_SIGN_PASSWORD.",
		Example: "  banger image bundle app -o app.tar.zst\n  banger image bundle app -o app.tar.zst --with-kernel --sign-key ~/.minisign/minisign.key\n  minisign -V -p minisign.pub -m app.tar.zst",
		Args:    argCount(1, 1), ValidArgsFunction: a.complete(1, imageNames),
	}
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "the file to write (needed), usually NAME.tar.zst")
	f.BoolVar(&req.WithKernel, "with-kernel", false, "put the kernel in that the image boots")
	f.StringVar(&signKey, "sign-key", "", "file of a secret key, made by minisign -G, to sign the bundle with")
	f.BoolVar(&req.Replace, "replace", false, "overwrite the file if it is there")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		if out == "" || out == "-" {
			return api.Errorf(api.KindInvalid, "cannot bundle image %s: name the file to write: -o FILE", ui.Clean(args[0])).WithHint("banger image bundle --help")
		}
		if signKey != "" && w.noWait {
			return api.Errorf(api.KindInvalid, "cannot sign what is not written yet: --sign-key and --no-wait do not go together").WithHint("banger image bundle --help")
		}
		var err error
		if req.Path, err = filepath.Abs(out); err != nil {
			return api.Errorf(api.KindInvalid, "cannot use path %s: %w", ui.Clean(out), err)
		}
		// What is wrong with the key is said before the long work, not after it.
		var key *signature.SecretKey
		if signKey != "" {
			k, err := signature.LoadSecretKey(signKey, func() (string, error) { return a.password(signKey) })
			if err != nil {
				return err
			}
			key = &k
		}
		if err := freeOfSignature(req.Path, req.Replace); err != nil {
			return err
		}
		outs, err := a.runOperations(ctx, args, w, func(ctx context.Context, c *client.Client, ref string) (api.Operation, error) {
			return c.BundleImage(ctx, ref, req)
		})
		if err != nil {
			return err
		}
		if outs[0].err != nil {
			return outs[0].err
		}
		if w.noWait {
			return a.printBegun(outs[0].op)
		}
		b, err := client.Result[api.Bundle](outs[0].op)
		if err != nil {
			return err
		}
		if key != nil {
			if err := sign(*key, &b); err != nil {
				return err
			}
		}
		return a.ui.Answer(b, func() error {
			if b.Signature != "" {
				a.ui.Note("signed by the key %s: %s", b.Key, ui.Clean(b.Signature))
			}
			a.ui.Note("%s, %s", ui.Clean(b.Path), ui.Bytes(b.SizeBytes))
			return a.ui.Println(b.Digest)
		})
	})
}

// freeOfSignature sees to it that no signature of another bundle will lie beside
// the new one.
func freeOfSignature(path string, replace bool) error {
	sig := path + signature.Suffix
	if _, err := os.Lstat(sig); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if !replace {
		return api.Errorf(api.KindExists, "cannot write bundle: %s is there already; --replace overwrites both", sig).WithHint("ls -l %s", sig)
	}
	if err := os.Remove(sig); err != nil {
		return api.Errorf(api.KindDenied, "cannot remove the old signature: %w", err).WithHint("ls -l %s", sig)
	}
	return nil
}

// password asks for the password of a secret key.
func (a *app) password(path string) (string, error) {
	if p := a.env.Getenv("BANGER_SIGN_PASSWORD"); p != "" {
		return p, nil
	}
	f, ok := a.env.Stdin.(*os.File)
	if !ok || !isTerminal(a.env.Stdin) || !a.ui.ErrTTY {
		return "", api.Errorf(api.KindInvalid, "cannot ask here for the password of %s", ui.Clean(path)).WithHint("export BANGER_SIGN_PASSWORD=…")
	}
	fmt.Fprintf(a.env.Stderr, "Password of %s: ", ui.Clean(path))
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.env.Stderr)
	if err != nil {
		return "", api.Errorf(api.KindCancelled, "cancelled: no password was given")
	}
	return string(b), nil
}

// sign writes the signature beside a bundle, once it has seen that the file is
// the one the daemon wrote.
func sign(key signature.SecretKey, b *api.Bundle) error {
	f, err := os.Open(b.Path)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot sign bundle: %w", err)
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	text, err := key.Sign(io.TeeReader(f, sum), filepath.Base(b.Path), time.Now())
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot sign bundle %s: %w", b.Path, err)
	}
	if d := "sha256:" + hex.EncodeToString(sum.Sum(nil)); d != b.Digest {
		return api.Errorf(api.KindBadState, "cannot sign bundle %s: it changed after it was written", b.Path).WithHint("ls -l %s", b.Path)
	}
	at := b.Path + signature.Suffix
	out, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot write signature: %w", err).WithHint("ls -l %s", at)
	}
	_, err = out.Write(text)
	if err = errors.Join(err, out.Close()); err != nil {
		_ = os.Remove(at)
		return api.Errorf(api.KindInternal, "cannot write signature: %w", err).WithHint("df -h %s", filepath.Dir(at))
	}
	b.Signature, b.Key = at, key.Public().ID()
	return nil
}

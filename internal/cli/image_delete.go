package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) imageDelete() *cobra.Command {
	var ok consent
	cmd := &cobra.Command{
		Use: "delete IMAGE… [flags]", Aliases: []string{"rm"}, Short: "Delete images",
		Long: "Delete images. Each must be named exactly, by name, reference or id. A name goes alone while the image has others,\n" +
			"an id with all its names. An image that machines use stays; files of your own are never touched.",
		Example: "  banger image delete app\n  banger image delete --yes app 127.0.0.1:5000/team/app:v1",
		Args:    argCount(1, -1), ValidArgsFunction: a.complete(-1, imageNames),
	}
	ok.flags(cmd, "do not ask, and let missing ones be")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		if ok.dryRun {
			return a.imageDeleteDry(ctx, c, args, ok.force)
		}
		shown := make([]string, len(args))
		for i, ref := range args {
			shown[i] = "image " + ui.Clean(ref)
		}
		if err := a.ask(ctx, ok, "delete "+strings.Join(shown, ", "), "banger image delete --dry-run "+strings.Join(args, " ")); err != nil {
			return err
		}
		results := make([]api.Result, len(args))
		for i, ref := range args {
			res, err := c.DeleteImage(ctx, ref)
			switch {
			case err == nil:
				results[i] = res
			case ok.force && api.KindOf(err) == api.KindNotFound:
				results[i] = api.Result{Ref: ref, OK: true}
			case len(args) == 1:
				return err
			default:
				results[i] = api.Result{Ref: ref, Error: api.AsError(err)}
			}
		}
		return a.printResults(results)
	})
}

// imageDeleteDry says what would go.
func (a *app) imageDeleteDry(ctx context.Context, c *client.Client, refs []string, force bool) error {
	results := make([]api.Result, len(refs))
	for i, ref := range refs {
		im, err := c.Image(ctx, ref)
		if err == nil && len(im.UsedBy) > 0 && len(im.Names) <= 1 {
			err = api.Errorf(api.KindBadState, "cannot delete image %q: VMs use it: %s", ref, strings.Join(im.UsedBy, ", ")).WithHint("banger vm list")
		}
		if force && api.KindOf(err) == api.KindNotFound {
			err = nil
		}
		if err != nil && len(refs) == 1 {
			return err
		}
		results[i] = api.Result{Ref: ref, ID: im.ID, OK: err == nil, Changed: err == nil && im.ID != "", Error: api.AsError(err)}
		if !results[i].Changed || a.ui.Structured() {
			continue
		}
		if im.ID != ref && len(im.Names) > 1 {
			a.ui.Note("would delete the name %s; the image has others: %s", ui.Clean(ref), ui.Clean(strings.Join(im.Names, ", ")))
		} else {
			a.ui.Note("would delete image %s of %s", ui.Clean(ref), ui.Bytes(im.SizeBytes))
		}
	}
	return a.printResults(results)
}

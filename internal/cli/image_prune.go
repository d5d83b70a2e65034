package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) imagePrune() *cobra.Command {
	var ok consent
	var req api.PruneImages
	cmd := &cobra.Command{
		Use: "prune [flags]", Short: "Delete images and downloads that nothing uses",
		Long: "Delete images that lost their names to newer ones and that no machine uses, and downloaded layers that belong to no\n" +
			"image; with --all also unused images that have a name, but none of your own files.",
		Example: "  banger image prune --dry-run\n  banger image prune --all",
		Args:    argCount(0, 0),
	}
	cmd.Flags().BoolVarP(&req.All, "all", "a", false, "unused images that have a name too")
	ok.flags(cmd, "")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		req.DryRun = true
		would, err := c.PruneImages(ctx, req)
		if err != nil {
			return err
		}
		if ok.dryRun || len(would.Images) == 0 && would.Blobs == 0 {
			return a.printPruned(would)
		}
		for _, im := range would.Images {
			a.ui.Note("will delete image %s (%s)", ui.Clean(called(im)), ui.Bytes(im.SizeBytes))
		}
		question := fmt.Sprintf("delete %s and %s, %s in all", counted(len(would.Images), "image"), counted(would.Blobs, "download"), ui.Bytes(would.FreedBytes))
		if err := a.ask(ctx, ok, question, "banger image prune --dry-run"); err != nil {
			return err
		}
		req.DryRun = false
		gone, err := c.PruneImages(ctx, req)
		if err != nil {
			return err
		}
		return a.printPruned(gone)
	})
}

func (a *app) printPruned(p api.PrunedImages) error {
	return a.ui.Answer(p, func() error {
		for _, im := range p.Images {
			if err := a.ui.Println(ui.Clean(called(im))); err != nil {
				return err
			}
		}
		if a.ui.Quiet {
			return nil
		}
		verb := "freed"
		if p.DryRun {
			verb = "would free"
		}
		a.ui.Note("%s %s: %s, %s", verb, ui.Bytes(p.FreedBytes), counted(len(p.Images), "image"), counted(p.Blobs, "download"))
		return nil
	})
}

// called is an image's name, or its id where it has none.
func called(im api.Image) string {
	if im.Name == "" {
		return im.ID
	}
	return im.Name
}

// counted is a number with its noun.
func counted(n int, what string) string {
	if n == 0 {
		return "no " + what + "s"
	}
	return count(n, what)
}

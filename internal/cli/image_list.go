package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) imageList() *cobra.Command {
	return listLocal(a, "image", func(ctx context.Context, c *client.Client) ([]api.Image, error) { return c.Images(ctx) },
		[]string{"NAME", "KIND", "KERNEL", "SIZE", "CREATED", "USED BY", "DIGEST"},
		called,
		func(im api.Image) []any {
			return []any{state(im), im.Kind, im.Kernel, ui.Bytes(im.SizeBytes), ui.Ago(time.Now(), im.CreatedAt), count(len(im.UsedBy), "VM"), shortDigest(im.Digest)}
		})
}

// state is an image's name, marked where something is wrong with it or it has none.
func state(im api.Image) string {
	name := im.Name
	if name == "" {
		name = "<none>"
	}
	if im.Error != nil {
		name += " (broken)"
	}
	return name
}

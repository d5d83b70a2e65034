package vm

import (
	"context"
	"slices"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// throughEntrypoint is the command as the VM's entrypoint, if it has one, is
// started with it. No command stands for the entrypoint alone, with the image's
// own command where the entrypoint is the image's.
func (m *Manager) throughEntrypoint(ctx context.Context, rec store.VM, argv []string) ([]string, error) {
	entry := rec.Entrypoint
	if rec.ImageEntrypoint {
		image, err := m.d.Store.Image(ctx, rec.ImageID)
		if err != nil {
			return nil, err
		}
		if len(image.Config.Entrypoint) == 0 {
			return nil, noEntrypoint(image)
		}
		entry = image.Config.Entrypoint
		if len(argv) == 0 {
			argv = image.Config.Cmd
		}
	}
	return append(slices.Clone(entry), argv...), nil
}

func noEntrypoint(image store.Image) error {
	return api.Errorf(api.KindInvalid, "cannot use the image's entrypoint: image %q has none", image.Name).
		WithHint("banger image show %s", image.Name)
}

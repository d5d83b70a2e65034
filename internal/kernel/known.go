package kernel

import (
	"context"

	"github.com/bangervm/banger/api"
)

// Known says whether a kernel is here or can be pulled by its name; else the error
// is the one that Resolve would give.
func (m *Manager) Known(ctx context.Context, name string) error {
	_, err := m.pulls.Find(ctx, name)
	if api.KindOf(err) == api.KindNotFound {
		_, err = m.known(ctx, name)
	}
	return err
}

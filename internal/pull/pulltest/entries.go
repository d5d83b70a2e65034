package pulltest

import (
	"context"
	"slices"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
)

// Entries is a catalog of a test.
type Entries []catalog.Item

// List gives them all.
func (e Entries) List(context.Context, catalog.Noun, bool) []catalog.Item { return e }

// Find gives the one with the name.
func (e Entries) Find(_ context.Context, _ catalog.Noun, name string) (catalog.Item, error) {
	i := slices.IndexFunc(e, func(i catalog.Item) bool { return i.Name == name })
	if i < 0 {
		return catalog.Item{}, api.Errorf(api.KindNotFound, "cannot find %q", name)
	}
	return e[i], nil
}

package catalog

import (
	"context"
	_ "embed"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/signature"
)

// builtin is the catalog that comes with banger.
//
//go:embed builtin.json
var builtin []byte

// Builtin is the name of the catalog that comes with banger.
const Builtin = "banger"

// Noun says which of a catalog's lists is meant.
type Noun string

// The lists of a catalog.
const (
	Images  Noun = "image"
	Kernels Noun = "kernel"
)

func (c Catalog) list(n Noun) []Entry {
	if n == Kernels {
		return c.Kernels
	}
	return c.Images
}

// Place is a catalog that the user configured.
type Place struct {
	Name string
	At   string // an absolute path, or a URL
	// Key, if any, must have signed the catalog, and its bundles, unless the
	// catalog names another key for these.
	Key *signature.Key
}

// Fetcher gets small files from URLs.
type Fetcher interface {
	// Bytes gets a file of at most limit bytes. A tag is what the last answer
	// said of its version; where that is still the version, body is nil.
	Bytes(ctx context.Context, url, tag string, limit int64) (body []byte, newTag string, err error)
}

// Item is one entry of one catalog, its downloads' URLs made whole.
type Item struct {
	Entry
	Catalog string
	// Key must have signed the bundles of the entry; nil demands nothing.
	Key *signature.Key
	// ShadowedBy is the catalog, earlier in the order, that has the name too: the
	// name means that one's.
	ShadowedBy string
}

// Set is all catalogs: the one of banger, then the configured ones in their
// order. Where two have a name, it means the earlier one's. Its methods may be
// called from several goroutines.
type Set struct {
	builtin Catalog
	places  []*place
	now     func() time.Time
}

// Own makes a set of banger's own catalog alone.
func Own() *Set {
	c, err := Parse(builtin)
	if err != nil {
		panic(err) // a test reads it
	}
	return &Set{builtin: c, now: time.Now}
}

// New makes a set. dir is the folder that fetched catalogs are kept in; it need
// not exist.
func New(places []Place, dir string, fetch Fetcher, now func() time.Time, log *slog.Logger) *Set {
	s := Own()
	s.now = now
	for _, p := range places {
		s.places = append(s.places, newPlace(p, dir, fetch, now, log))
	}
	return s
}

// List gives all entries of a noun, those of each catalog in its own order. It
// fetches what was never fetched, and with refresh everything. A catalog that
// cannot be read has no entries; States says why.
func (s *Set) List(ctx context.Context, noun Noun, refresh bool) []Item {
	s.load(ctx, refresh, func(p *place) bool { return refresh || p.wanted() })
	items := items(Builtin, s.builtin, noun, nil)
	for _, p := range s.places {
		items = append(items, p.items(noun)...)
	}
	first := map[string]string{}
	for i := range items {
		if c, ok := first[items[i].Name]; ok {
			items[i].ShadowedBy = c
		} else {
			first[items[i].Name] = items[i].Catalog
		}
	}
	return items
}

// Find gives the entry that a name means. Where no catalog has it, those that
// were fetched more than an hour ago are asked again. An error is of kind
// not-found when all catalogs were read and none has the name, of kind
// unavailable when one could not be read.
func (s *Set) Find(ctx context.Context, noun Noun, name string) (Item, error) {
	for _, i := range items(Builtin, s.builtin, noun, nil) {
		if i.Name == name { // at once, without a look at the others
			return i, nil
		}
	}
	s.load(ctx, false, (*place).wanted)
	if i, ok := s.find(noun, name); ok {
		return i, nil
	}
	s.load(ctx, true, (*place).old)
	if i, ok := s.find(noun, name); ok {
		return i, nil
	}
	if ctx.Err() != nil {
		return Item{}, api.Errorf(api.KindCancelled, "cannot look for %s %q: %w", noun, name, context.Cause(ctx))
	}
	for _, p := range s.places {
		if err := p.failure(); err != nil && !p.loaded() {
			return Item{}, api.Errorf(api.KindUnavailable, "cannot look for %s %q: the catalog %q could not be read: %w", noun, name, p.Name, err).
				WithHint("banger %s catalog --refresh", noun)
		}
	}
	return Item{}, api.Errorf(api.KindNotFound, "cannot find %s %q: it is in no catalog", noun, name).WithHint("banger %s catalog", noun)
}

func (s *Set) find(noun Noun, name string) (Item, bool) {
	for _, p := range s.places {
		list := p.items(noun)
		if i := slices.IndexFunc(list, func(i Item) bool { return i.Name == name }); i >= 0 {
			return list[i], true
		}
	}
	return Item{}, false
}

// load loads those of the places that wants says, side by side.
func (s *Set) load(ctx context.Context, anew bool, wants func(*place) bool) {
	var wg sync.WaitGroup
	for _, p := range s.places {
		if !p.isURL() || wants(p) {
			wg.Go(func() { p.load(ctx, anew) })
		}
	}
	wg.Wait()
}

// State is what is known of one catalog.
type State struct {
	Name string
	At   string // where it is; empty for banger's own
	Key  string // that it must be signed by; empty for none
	// FetchedAt is when it was last known to be what its place says; zero when it
	// was never read.
	FetchedAt time.Time
	Entries   int
	// Err is why it could not be read the last time. With entries, these are those
	// of an older time.
	Err error
}

// States says how all catalogs are, without reading any.
func (s *Set) States() []State {
	list := []State{{Name: Builtin, Entries: len(s.builtin.Images) + len(s.builtin.Kernels), FetchedAt: s.now()}}
	for _, p := range s.places {
		list = append(list, p.state())
	}
	return list
}

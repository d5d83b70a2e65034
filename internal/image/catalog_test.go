package image

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/pull/pulltest"
	"github.com/bangervm/banger/internal/store"
)

// origin is a Source that fails where told to.
type origin struct {
	b          *builder
	plan, made error
	plans      int
}

func (o *origin) Plan(_ context.Context, from pull.Source, _ pull.Report) (pull.Plan[store.Image], error) {
	o.plans++
	if o.plan != nil {
		return pull.Plan[store.Image]{}, o.plan
	}
	r := recipes{Options{Build: o.b.build, CanBuild: func(catalog.Debian) error { return nil }, Now: time.Now}}
	plan, err := r.Plan(context.Background(), pull.Source{Ref: from.Ref, With: map[string]string{withPackages: "{}"}}, nil)
	build := plan.Make
	plan.Make = func(ctx context.Context, dir, temp string, report pull.Report) (store.Image, error) {
		i, err := build(ctx, dir, temp, report)
		if o.made != nil {
			return store.Image{}, o.made
		}
		i.Kind = KindOCI
		return i, err
	}
	return plan, err
}

// A source that cannot work on this host makes room for the next, and is told
// of; one that fails does not.
func TestTheNextSourceOfACatalogEntry(t *testing.T) {
	t.Parallel()
	lacks := api.Errorf(api.KindUnavailable, "mmdebstrap is missing")
	old := api.Errorf(api.KindUnsupported, "the keys are old")
	forged := api.Errorf(api.KindDenied, "the signature is wrong")
	broken := api.Errorf(api.KindUnavailable, "the line broke")
	item := catalog.Item{Catalog: "test", Entry: catalog.Entry{Name: "app", Kernel: "its-kernel", Sources: []catalog.Source{
		{Kind: "hologram"},
		{Kind: catalog.KindOCI, Arch: "pdp11", OCI: &catalog.OCI{Reference: "r.example/pdp11"}},
		{Kind: catalog.KindDebian, Debian: &catalog.Debian{Suite: "bookworm"}},
		{Kind: catalog.KindOCI, OCI: &catalog.OCI{Reference: "r.example/app:1"}},
	}}}
	for name, c := range map[string]struct {
		can        error // whether packages can be had
		plan, made error // of the registry
		build      *api.Error
		kind       string // of the image made
		fails      api.Kind
		says       []string
		asked      int // plans of the registry
	}{
		"the first that can":        {kind: KindDebian},
		"a tool is missing":         {can: lacks, kind: KindOCI, asked: 1},
		"the keys are old":          {can: old, kind: KindOCI, asked: 1},
		"no namespaces, seen late":  {build: api.Errorf(api.KindUnsupported, "no user namespaces"), kind: KindOCI, asked: 1},
		"a wrong signature":         {build: forged, fails: api.KindDenied, says: []string{"signature"}},
		"a broken line":             {build: broken, fails: api.KindUnavailable, says: []string{"line broke"}},
		"the next fails in looking": {can: lacks, plan: broken, fails: api.KindUnavailable, says: []string{"line broke", "mmdebstrap is missing"}, asked: 1},
		"the next fails in making":  {can: lacks, made: forged, fails: api.KindDenied, says: []string{"signature"}, asked: 1},
		"none can":                  {can: lacks, plan: old, fails: api.KindUnsupported, says: []string{"keys are old", "mmdebstrap is missing", "hologram", "pdp11"}, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b := pulltest.NewHost(t, t.TempDir()), &builder{}
			other := &origin{b: &builder{}, plan: c.plan, made: c.made}
			if c.build != nil {
				b.Err.Store(c.build)
			}
			m := New(h.L, h.DB, h.Ops, h.Log, Options{
				Build: b.build, CanBuild: func(catalog.Debian) error { return c.can }, Catalog: pulltest.Entries{item}, Sources: map[string]Source{FromOCI: other},
			})
			var stages []string
			i, err := m.Resolve(t.Context(), "app", "", func(stage string, _ api.Progress) { stages = append(stages, stage) })
			if api.KindOf(err) != c.fails {
				t.Fatalf("got %+v, %v", i, err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("no %q in: %v", s, err)
				}
			}
			if err == nil && (i.Kind != c.kind || i.Reference != "app" || i.Kernel != "its-kernel") {
				t.Errorf("made %+v", i)
			}
			if other.plans != c.asked {
				t.Errorf("the registry was asked %d times", other.plans)
			}
			h.NothingLeft(t)
		})
	}
}

func TestTheCatalogSaysWhatThisHostCannot(t *testing.T) {
	t.Parallel()
	h := pulltest.NewHost(t, t.TempDir())
	m := New(h.L, h.DB, h.Ops, h.Log, Options{
		Build: (&builder{}).build,
		CanBuild: func(d catalog.Debian) error {
			if d.Suite == "trixie" {
				return api.Errorf(api.KindUnsupported, "the keys are old")
			}
			return nil
		},
		Sources: map[string]Source{FromOCI: &origin{}},
		Catalog: pulltest.Entries{
			{Catalog: "a", Entry: catalog.Entry{Name: "one", Description: "d", Kernel: "k", Sources: []catalog.Source{{Kind: catalog.KindDebian, Debian: &catalog.Debian{Suite: "bookworm"}}}}},
			{Catalog: "a", Entry: catalog.Entry{Name: "two", Sources: []catalog.Source{
				{Kind: catalog.KindDebian, Debian: &catalog.Debian{Suite: "trixie"}}, {Kind: catalog.KindOCI, OCI: &catalog.OCI{Reference: "r/two"}},
			}}},
			{Catalog: "b", ShadowedBy: "a", Entry: catalog.Entry{Name: "two", Sources: []catalog.Source{
				{Kind: catalog.KindDebian, Debian: &catalog.Debian{Suite: "trixie"}}, {Kind: "hologram"},
			}}},
		},
	})
	got, err := m.Catalog(t.Context(), false)
	want := []api.CatalogEntry{
		{Name: "one", Description: "d", Kernel: "k", Catalog: "a", Kind: "debian", Sources: []string{"debian"}},
		{Name: "two", Catalog: "a", Kind: "oci", Sources: []string{"debian", "oci"}},
		{Name: "two", Catalog: "b", ShadowedBy: "a", Kind: "debian", Sources: []string{"debian", "hologram"}, Unsupported: "the keys are old"},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// Source knows how images are made from one kind of origin: a recipe, a
// registry's reference, an archive, a bundle.
type Source interface {
	// Plan looks at the origin, without making anything. It may take as long as a
	// network does, and heeds ctx.
	Plan(ctx context.Context, from pull.Source, report pull.Report) (pull.Plan[store.Image], error)
}

// The kinds of pull.Source that this package knows by itself; Options.Sources
// adds others.
const (
	FromCatalog = "catalog" // Ref is the name of an entry
	FromDebian  = "debian"  // Ref is the name of a recipe
	FromOCI     = "oci"     // Ref is a registry's reference in full
	FromBundle  = "bundle"  // Ref is a path or a URL
)

// withKernel is the key of pull.Source.With that names the kernel to boot.
const withKernel = "kernel"

// Entry is one image that can be pulled by its bare name.
type Entry struct {
	Name        string
	Description string
	Kernel      string // that it boots; empty is the default kernel
	// Sources are tried in order: the next where one cannot be had here.
	Sources []pull.Source
}

// DefaultName is the image for whoever names none.
const DefaultName = "debian-bookworm"

// DefaultKernel is the kernel an image boots that names no other.
const DefaultKernel = "debian-bookworm-cloud"

// Embedded is the catalog that comes with banger.
func Embedded() []Entry {
	return []Entry{{
		Name: DefaultName, Description: "Debian 12 with a developer's tools, built on this host from the signed archive",
		Kernel: DefaultKernel, Sources: []pull.Source{{Kind: FromDebian, Ref: DefaultName}},
	}}
}

// plan looks at the source of a job.
func (m *Manager) plan(ctx context.Context, job pull.Job, report pull.Report) (plan pull.Plan[store.Image], err error) {
	if job.Source.Kind == FromCatalog {
		plan, err = m.planEntry(ctx, job.Source.Ref, report)
	} else {
		plan, err = m.planSource(ctx, job.Source, report)
	}
	if err != nil {
		return plan, err
	}
	describe := plan.Describe
	plan.Describe = func(i store.Image) store.Image {
		i.Kernel = "" // that of another name
		i = describe(i)
		i.Kernel = first(i.Kernel, DefaultKernel)
		return i
	}
	return plan, nil
}

func (m *Manager) planSource(ctx context.Context, from pull.Source, report pull.Report) (pull.Plan[store.Image], error) {
	s := m.sources[from.Kind]
	if s == nil {
		return pull.Plan[store.Image]{}, api.Errorf(api.KindUnsupported, "cannot make an image from %s: this banger does not know how (%s)", from.Ref, from.Kind)
	}
	plan, err := s.Plan(ctx, from, report)
	if err != nil {
		return plan, err
	}
	if source := from.With[withSeed]; source != "" && from.Kind != fromImage {
		plan = seeded(plan, source)
	}
	describe := plan.Describe
	plan.Describe = func(i store.Image) store.Image {
		if describe != nil {
			i = describe(i)
		}
		if k := from.With[withKernel]; k != "" {
			i.Kernel = k
		}
		return i
	}
	return plan, nil
}

// planEntry looks at the sources of a catalog entry until one can be had.
func (m *Manager) planEntry(ctx context.Context, name string, report pull.Report) (pull.Plan[store.Image], error) {
	e, err := m.entry(ctx, name)
	if err != nil {
		return pull.Plan[store.Image]{}, err
	}
	plan, rest, err := m.firstOf(ctx, e.Sources, nil, report)
	if err != nil {
		return plan, err
	}
	describe, make := plan.Describe, plan.Make
	plan.Describe = func(i store.Image) store.Image {
		i = describe(i)
		i.Reference = e.Name // whichever source it was: the name is the entry's own
		if i.Kernel == "" {
			i.Kernel = e.Kernel
		}
		return i
	}
	if plan.Key == "" {
		plan.Key = "catalog " + name
	}
	plan.Make = func(ctx context.Context, dir, tempDir string, report pull.Report) (store.Image, error) {
		i, err := make(ctx, dir, tempDir, report)
		for err != nil && elsewhere(err) && len(rest) > 0 && ctx.Err() == nil {
			var next pull.Plan[store.Image]
			if next, rest, err = m.firstOf(ctx, rest, err, report); err != nil {
				break
			}
			if err = clearFolder(dir); err != nil {
				break
			}
			i, err = next.Make(ctx, dir, tempDir, report)
			if next.Close != nil {
				next.Close()
			}
			i = next.Describe(i)
		}
		return i, err
	}
	return plan, nil
}

// firstOf plans the first of the sources that can be had, and gives those after
// it. before is why those that went before could not.
func (m *Manager) firstOf(ctx context.Context, sources []pull.Source, before error, report pull.Report) (pull.Plan[store.Image], []pull.Source, error) {
	for i, s := range sources {
		if before != nil {
			m.log.WarnContext(ctx, "source of an image not to be had, trying the next", "next", s.Ref, "error", before)
			report("trying "+s.Ref, api.Progress{})
		}
		plan, err := m.planSource(ctx, s, report)
		if err == nil {
			return plan, sources[i+1:], nil
		}
		if before != nil {
			e := api.AsError(err)
			err = api.Errorf(e.Kind, "%w; before that: %w", err, before).WithHint("%s", api.AsError(before).Hint)
		}
		if !elsewhere(err) {
			return plan, nil, err
		}
		before = err
	}
	if before == nil {
		before = api.Errorf(api.KindInternal, "the catalog entry has no source")
	}
	return pull.Plan[store.Image]{}, nil, before
}

// elsewhere says that what failed may well be had from another source.
func elsewhere(err error) bool {
	return slices.Contains([]api.Kind{api.KindUnavailable, api.KindUnsupported, api.KindNotFound, api.KindDenied}, api.KindOf(err))
}

// clearFolder removes what is in a folder.
func clearFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// recipes makes images from Debian packages.
type recipes struct {
	opt Options
	all map[string]Recipe
}

func (r recipes) Plan(_ context.Context, from pull.Source, _ pull.Report) (pull.Plan[store.Image], error) {
	recipe, ok := r.all[from.Ref]
	if !ok {
		return pull.Plan[store.Image]{}, api.Errorf(api.KindUnsupported, "cannot build image %q: this banger has no such recipe", from.Ref)
	}
	return pull.Plan[store.Image]{
		Key: "debian " + from.Ref,
		Same: func(i store.Image) bool {
			return i.Kind == KindDebian && first(i.Source["recipe"], i.Reference) == from.Ref
		},
		Describe: func(i store.Image) store.Image { i.Reference = from.Ref; return i },
		Make: func(ctx context.Context, dir, tempDir string, report pull.Report) (store.Image, error) {
			mirrors, err := debian.FindMirrors(r.opt.Mirror)
			if err != nil {
				return store.Image{}, err
			}
			m, err := r.opt.Build(ctx, layout.ImageDir{Dir: dir}, recipe, BuildOptions{
				Mirrors: mirrors, AptOptions: debian.HostAptOptions(ctx), TempDir: tempDir, Now: r.opt.Now(), Report: pull.Debian(report),
			})
			if err != nil {
				return store.Image{}, err
			}
			i := m.record(KindDebian, r.opt.Now())
			i.Source["recipe"] = from.Ref
			return i, nil
		},
	}, nil
}

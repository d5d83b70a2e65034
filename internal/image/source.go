package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
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
	FromDebian  = "debian"  // Ref is the name of the entry, With has its packages
	FromOCI     = "oci"     // Ref is a registry's reference in full
	FromBundle  = "bundle"  // Ref is a path or a URL
)

// withKernel is the key of pull.Source.With that names the kernel to boot.
const withKernel = "kernel"

// DefaultName is the image for whoever names none.
const DefaultName = "debian-bookworm"

// DefaultKernel is the kernel an image boots that names no other.
const DefaultKernel = "debian-bookworm-cloud"

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
		return pull.Plan[store.Image]{}, unknownKind(from)
	}
	if err := checkArch(from); err != nil {
		return pull.Plan[store.Image]{}, err
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

// clearFolder removes what is in a folder.
func clearFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// recipes makes images from Debian packages.
type recipes struct{ opt Options }

// Plan says, before anything is fetched, what the host lacks for it.
func (r recipes) Plan(_ context.Context, from pull.Source, _ pull.Report) (pull.Plan[store.Image], error) {
	var d catalog.Debian
	if err := json.Unmarshal([]byte(from.With[withPackages]), &d); err != nil {
		return pull.Plan[store.Image]{}, api.Errorf(api.KindUnsupported, "cannot build image %q: this banger has no such recipe", from.Ref)
	}
	if err := r.opt.CanBuild(d); err != nil {
		return pull.Plan[store.Image]{}, cannotHere{err}
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
			m, err := r.opt.Build(ctx, layout.ImageDir{Dir: dir}, recipeOf(d), BuildOptions{
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

// canBuild looks for what a build needs on this host.
func canBuild(d catalog.Debian) error {
	if _, err := debian.Check(); err != nil {
		return err
	}
	return debian.CheckKeys("", d.Suite, d.Keys)
}

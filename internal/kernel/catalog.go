package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// DefaultName is the kernel for whoever names none.
const DefaultName = "debian-bookworm-cloud"

// maxDownload bounds a kernel that is downloaded, in bytes.
const maxDownload = 4 << 30

// Catalog is where kernels are looked up by name; *catalog.Set is the real one.
type Catalog interface {
	List(ctx context.Context, noun catalog.Noun, refresh bool) []catalog.Item
	Find(ctx context.Context, noun catalog.Noun, name string) (catalog.Item, error)
}

// Downloads gets files from web servers.
type Downloads interface {
	File(ctx context.Context, at, path string, limit int64, report func(done, total int64)) error
}

// recipeOf is the recipe of a catalog's package.
func recipeOf(d catalog.Debian) Recipe {
	return Recipe{Suite: d.Suite, Package: d.Packages[0], TreeBytes: d.TreeBytes, KernelBytes: d.ImageBytes}
}

// entries lists what can be pulled by name.
func (m *Manager) entries(ctx context.Context, refresh bool) ([]api.CatalogEntry, error) {
	items := m.opt.Catalog.List(ctx, catalog.Kernels, refresh)
	list := make([]api.CatalogEntry, 0, len(items))
	for _, i := range items {
		e := api.CatalogEntry{Name: i.Name, Description: i.Description, Catalog: i.Catalog, ShadowedBy: i.ShadowedBy, Sources: []string{}}
		for _, s := range i.Sources {
			e.Sources = append(e.Sources, s.Kind)
		}
		if s, err := m.source(i); err == nil {
			e.Kind = s.Kind
		} else {
			e.Kind, e.Unsupported = e.Sources[0], err.Error()
		}
		list = append(list, e)
	}
	return list, nil
}

// source is the first source of an entry that can work on this host; else the
// error says why each cannot.
func (m *Manager) source(i catalog.Item) (catalog.Source, error) {
	var err *api.Error
	for _, s := range i.Sources {
		why := m.cannot(i.Name, s)
		if why == nil {
			return s, nil
		}
		if err == nil {
			err = api.AsError(why)
		} else {
			err.Message += "; and " + why.Error()
		}
	}
	return catalog.Source{}, err
}

// cannot says why a source cannot work on this host.
func (m *Manager) cannot(name string, s catalog.Source) error {
	switch {
	case s.Arch != "" && s.Arch != runtime.GOARCH:
		return api.Errorf(api.KindUnsupported, "cannot pull kernel %q: it is for %s, and this host is %s", name, s.Arch, runtime.GOARCH)
	case s.Debian != nil:
		return m.opt.CanBuild(*s.Debian)
	case s.File != nil && m.opt.Downloads != nil:
		return nil
	}
	return api.Errorf(api.KindUnsupported, "cannot pull kernel %q: this banger does not know how (%s)", name, s.Kind)
}

// canBuild looks for what a build needs on this host.
func canBuild(d catalog.Debian) error {
	if _, err := debian.Check(); err != nil {
		return err
	}
	return debian.CheckKeys("", d.Suite, d.Keys)
}

// planEntry is the plan for an entry of a catalog.
func (m *Manager) planEntry(ctx context.Context, name string) (pull.Plan[store.Kernel], error) {
	i, err := m.opt.Catalog.Find(ctx, catalog.Kernels, name)
	if err != nil {
		return pull.Plan[store.Kernel]{}, err
	}
	s, err := m.source(i)
	if err != nil {
		return pull.Plan[store.Kernel]{}, err
	}
	want := ""
	if s.File != nil {
		want = s.File.Digest
	}
	return pull.Plan[store.Kernel]{
		Key:  "catalog " + name + " " + want,
		Same: func(k store.Kernel) bool { return k.Source["reference"] == name && k.Source["file"] == want },
		Describe: func(k store.Kernel) store.Kernel {
			source := map[string]string{"kind": s.Kind, "reference": name}
			if want != "" {
				source["file"] = want
			}
			for key, value := range k.Source {
				if source[key] == "" {
					source[key] = value
				}
			}
			k.Source = source
			return k
		},
		Make: func(ctx context.Context, dir, tempDir string, report pull.Report) (store.Kernel, error) {
			if s.File != nil {
				return m.download(ctx, name, *s.File, dir, tempDir, report)
			}
			return m.make(ctx, recipeOf(*s.Debian), dir, tempDir, report)
		},
	}, nil
}

// download gets a file that is what an import takes, and imports it once it is
// seen to be the one that the catalog means. tempDir holds it meanwhile.
func (m *Manager) download(ctx context.Context, name string, from catalog.Download, dir, tempDir string, report pull.Report) (store.Kernel, error) {
	if err := debian.CheckSpace("download kernel", debian.Need{Dir: tempDir, Bytes: from.SizeBytes}); err != nil {
		return store.Kernel{}, err
	}
	if err := os.Mkdir(tempDir, 0o700); err != nil {
		return store.Kernel{}, err
	}
	defer func() { _ = os.RemoveAll(tempDir) }()
	// A path of the user's own, beside a catalog that is a file, is read where it is.
	file := from.URL
	if !filepath.IsAbs(file) {
		file = filepath.Join(tempDir, path.Base(from.URL))
		err := m.opt.Downloads.File(ctx, from.URL, file, maxDownload, func(done, total int64) {
			report("downloading "+path.Base(from.URL), api.Progress{Done: done, Total: total, Unit: "bytes"})
		})
		if err != nil {
			return store.Kernel{}, err
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return store.Kernel{}, api.Errorf(api.KindUnavailable, "cannot pull kernel %q: %w", name, err)
	}
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	_ = f.Close()
	if err != nil {
		return store.Kernel{}, api.Errorf(api.KindUnavailable, "cannot pull kernel %q: %w", name, err)
	}
	if d := "sha256:" + hex.EncodeToString(sum.Sum(nil)); d != from.Digest {
		return store.Kernel{}, api.Errorf(api.KindDenied, "cannot trust %s: its digest is %s, and its catalog says %s", from.URL, d, from.Digest)
	}
	d := layout.KernelDir{Dir: dir}
	manifest, err := Import(ctx, d, ImportOptions{Name: name, Path: file, Report: pull.Debian(report)})
	if err != nil {
		return store.Kernel{}, err
	}
	id, err := idOf(d, manifest.Content)
	if err != nil {
		return store.Kernel{}, err
	}
	k := m.record(manifest, importID(name, id))
	delete(k.Source, "path") // of a file that is gone
	return k, nil
}

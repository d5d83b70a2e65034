package image

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// Store keeps the durable records; *store.DB is the real one.
type Store interface {
	InsertImage(ctx context.Context, i store.Image) error
	UpdateImage(ctx context.Context, id string, change func(*store.Image) error) (store.Image, error)
	Image(ctx context.Context, id string) (store.Image, error)
	ImageByName(ctx context.Context, name string) (store.Image, error)
	Images(ctx context.Context) ([]store.Image, error)
	DeleteImage(ctx context.Context, id string) error
	VMs(ctx context.Context) ([]store.VM, error)
}

// Options are the host's part, and what tests change.
type Options struct {
	// Default is the image an empty reference means; empty is DefaultName.
	Default string
	// Mirror is the configuration's debian_mirror; empty means the host's own.
	Mirror string
	Now    func() time.Time
	// Build makes an image from a recipe; nil means Build of this package.
	Build func(ctx context.Context, dir layout.ImageDir, recipe Recipe, opt BuildOptions) (Manifest, error)
}

// Manager finds, pulls and lists images. Its methods may be called from several
// goroutines.
type Manager struct {
	layout  layout.Layout
	opt     Options
	catalog []entry
	pulls   *pull.Puller[store.Image, api.Image]
}

// New makes a manager and registers its operation image.pull. The caller calls
// Recover before it lets anybody pull.
func New(l layout.Layout, s Store, ops *operation.Registry, log *slog.Logger, opt Options) *Manager {
	if opt.Build == nil {
		opt.Build = Build
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Default == "" {
		opt.Default = DefaultName
	}
	m := &Manager{layout: l, opt: opt, catalog: embedded()}
	m.pulls = pull.New(pull.Noun[store.Image, api.Image]{
		Name: "image", Catalog: m.entries, Make: m.make, Check: m.check, View: toAPI,
		Dir:    func(id string) string { return l.Image(id).Dir },
		ID:     func(i store.Image) string { return i.ID },
		NameOf: func(i *store.Image) *string { return &i.Name },
		Digest: func(i store.Image) string { return i.Digest },
		UsedID: func(vm store.VM) string { return vm.ImageID },
		Insert: s.InsertImage, Update: s.UpdateImage, ByID: s.Image, ByName: s.ImageByName, All: s.Images, Delete: s.DeleteImage, VMs: s.VMs,
	}, l.Staging(), ops, log)
	return m
}

// Recover tidies up after a daemon that died: half-made images, and images that
// lost their name and that no VM uses. It is called at start, before anything
// is pulled or created.
func (m *Manager) Recover(ctx context.Context) error { return m.pulls.Recover(ctx) }

// Resolve gives the image a reference names: an exact name or id of one that is
// here, or a name of the catalog, pulled as the policy (missing, always, never;
// empty is missing) allows. report, which may be nil, is told of a pull's
// progress. Cancelling ctx ends the wait, not the pull.
func (m *Manager) Resolve(ctx context.Context, ref, policy string, report pull.Report) (store.Image, error) {
	if ref == "" {
		ref = m.opt.Default
	}
	return m.pulls.Resolve(ctx, ref, policy, report)
}

// KernelAhead is the kernel that an image of the catalog will want which is not
// here yet; empty for every other. It lets both be pulled at once.
func (m *Manager) KernelAhead(ctx context.Context, ref string) string {
	if ref == "" {
		ref = m.opt.Default
	}
	if _, err := m.pulls.Find(ctx, ref); api.KindOf(err) != api.KindNotFound {
		return ""
	}
	for _, e := range m.catalog {
		if e.name == ref {
			return e.kernel
		}
	}
	return ""
}

// Pull begins, or joins, the pull of an image of the catalog.
func (m *Manager) Pull(ctx context.Context, req api.Pull) (api.Operation, error) {
	return m.pulls.Pull(ctx, req.Name, req.Force)
}

// List gives the images that are here, oldest first.
func (m *Manager) List(ctx context.Context) ([]api.Image, error) { return m.pulls.List(ctx) }

// Show gives one image by its exact name or id.
func (m *Manager) Show(ctx context.Context, ref string) (api.Image, error) {
	return m.pulls.Show(ctx, ref)
}

// Catalog lists what can be pulled.
func (m *Manager) Catalog(ctx context.Context) ([]api.CatalogEntry, error) {
	return m.pulls.Catalog(ctx)
}

// check looks whether the image's files are whole.
func (m *Manager) check(i store.Image) (wrong string, err error) {
	dir := m.layout.Image(i.ID)
	manifest, err := ReadManifest(dir)
	if err != nil {
		return "", err
	}
	fi, err := os.Stat(dir.RootFS())
	if err != nil {
		return "", err
	}
	if fi.Size() != manifest.SizeBytes || manifest.Digest != i.Digest {
		wrong = dir.RootFS() + " is not what its manifest says"
	}
	return wrong, nil
}

func (m *Manager) entries() []api.CatalogEntry {
	list := make([]api.CatalogEntry, 0, len(m.catalog))
	for _, e := range m.catalog {
		list = append(list, api.CatalogEntry{Name: e.name, Kind: e.kind(), Description: e.description})
	}
	return list
}

// make builds the image of a catalog entry in dir.
func (m *Manager) make(ctx context.Context, name, dir, tempDir string, report func(debian.Progress)) (store.Image, error) {
	var e entry
	for _, c := range m.catalog {
		if c.name == name {
			e = c
		}
	}
	if e.recipe == nil {
		return store.Image{}, api.Errorf(api.KindUnsupported, "cannot pull image %q: this banger does not know how", name)
	}
	mirrors, err := debian.FindMirrors(m.opt.Mirror)
	if err != nil {
		return store.Image{}, err
	}
	manifest, err := m.opt.Build(ctx, layout.ImageDir{Dir: dir}, *e.recipe, BuildOptions{
		Mirrors: mirrors, AptOptions: debian.HostAptOptions(ctx), TempDir: tempDir, Now: m.opt.Now(), Report: report,
	})
	if err != nil {
		return store.Image{}, err
	}
	return store.Image{
		ID: idOf(manifest.Digest), Name: name, Digest: manifest.Digest, Kind: e.kind(), Reference: name, Kernel: e.kernel,
		SizeBytes: manifest.SizeBytes, Config: manifest.Config, Source: manifest.Source, CreatedAt: m.opt.Now().UTC(),
	}, nil
}

// idOf is the id of an image: the beginning of its digest.
func idOf(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(16, len(hex))]
}

func toAPI(i store.Image, usedBy []string, changed bool) api.Image {
	return api.Image{
		Name: i.Name, Digest: i.Digest, Kind: i.Kind, Reference: i.Reference, Kernel: i.Kernel, SizeBytes: i.SizeBytes,
		CreatedAt: i.CreatedAt, UsedBy: usedBy, Changed: changed, Source: i.Source,
		Config: api.ImageConfig{
			Env: list(i.Config.Env), Workdir: i.Config.Workdir, User: i.Config.User,
			Entrypoint: list(i.Config.Entrypoint), Cmd: list(i.Config.Cmd),
		},
	}
}

// list gives JSON an empty array for nothing.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

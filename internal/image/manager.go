package image

import (
	"context"
	"errors"
	"fmt"
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
	store   Store
	opt     Options
	catalog []entry
	pulls   *pull.Puller[store.Image]
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
	m := &Manager{layout: l, store: s, opt: opt, catalog: embedded()}
	m.pulls = pull.New(pull.Noun[store.Image]{
		Name: "image", Find: m.find, Check: m.check, Catalog: m.names, Local: m.local, Make: m.make,
		ID: func(i store.Image) string { return i.ID }, Digest: func(i store.Image) string { return i.Digest },
		Dir:    func(id string) string { return l.Image(id).Dir },
		Insert: s.InsertImage, SetName: m.setName, Delete: s.DeleteImage,
		Result: func(ctx context.Context, i store.Image, changed bool) (any, error) {
			v, err := m.view(ctx, i)
			v.Changed = changed
			return v, err
		},
	}, l.Staging(), ops, log)
	return m
}

// Recover tidies up after a daemon that died: half-made images, and images that
// lost their name and that no VM uses. It is called at start, before anything
// is pulled or created.
func (m *Manager) Recover(ctx context.Context) error {
	err := m.pulls.Recover(ctx)
	images, lerr := m.store.Images(ctx)
	vms, verr := m.store.VMs(ctx)
	if lerr != nil || verr != nil {
		return errors.Join(err, lerr, verr)
	}
	for _, i := range images {
		if i.Name != "" || len(usedBy(vms, i.ID)) > 0 {
			continue
		}
		if derr := m.store.DeleteImage(ctx, i.ID); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		err = errors.Join(err, os.RemoveAll(m.layout.Image(i.ID).Dir))
	}
	return err
}

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
	if _, err := m.find(ctx, ref); api.KindOf(err) != api.KindNotFound {
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
func (m *Manager) List(ctx context.Context) ([]api.Image, error) {
	images, err := m.store.Images(ctx)
	if err != nil {
		return nil, err
	}
	vms, err := m.store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]api.Image, 0, len(images))
	for _, i := range images {
		list = append(list, toAPI(i, vms))
	}
	return list, nil
}

// Show gives one image by its exact name or id.
func (m *Manager) Show(ctx context.Context, ref string) (api.Image, error) {
	i, err := m.find(ctx, ref)
	if err != nil {
		return api.Image{}, err
	}
	return m.view(ctx, i)
}

// Catalog lists what can be pulled.
func (m *Manager) Catalog(ctx context.Context) ([]api.CatalogEntry, error) {
	images, err := m.store.Images(ctx)
	if err != nil {
		return nil, err
	}
	here := map[string]bool{}
	for _, i := range images {
		here[i.Name] = true
	}
	list := make([]api.CatalogEntry, 0, len(m.catalog))
	for _, e := range m.catalog {
		list = append(list, e.api(here[e.name]))
	}
	return list, nil
}

// find gives the record with the exact name, else the exact id.
func (m *Manager) find(ctx context.Context, ref string) (store.Image, error) {
	i, err := m.store.ImageByName(ctx, ref)
	if api.KindOf(err) != api.KindNotFound {
		return i, err
	}
	i, ierr := m.store.Image(ctx, ref)
	if api.KindOf(ierr) != api.KindNotFound {
		return i, ierr
	}
	return store.Image{}, api.AsError(err).WithHint("banger image list")
}

// check looks whether the image's files are whole. None of its errors is of
// kind not-found: the record says that the image is here.
func (m *Manager) check(_ context.Context, i store.Image) error {
	dir := m.layout.Image(i.ID)
	manifest, err := ReadManifest(dir)
	if err == nil {
		var fi os.FileInfo
		if fi, err = os.Stat(dir.RootFS()); err == nil {
			if fi.Size() != manifest.SizeBytes || manifest.Digest != i.Digest {
				return api.Errorf(api.KindInternal, "cannot use image %q: %s is not what its manifest says", i.Name, dir.RootFS()).
					WithHint("banger image pull %s --force", i.Name)
			}
			return nil
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return api.Errorf(api.KindBadState, "cannot use image %q: its files are gone: %w", i.Name, err).
			WithHint("banger image pull %s --force", i.Name)
	case errors.Is(err, os.ErrPermission):
		return api.Errorf(api.KindDenied, "cannot use image %q: %w", i.Name, err).WithHint("ls -ld %s", dir.Dir)
	}
	return fmt.Errorf("cannot use image %q: %w", i.Name, err)
}

func (m *Manager) names() []string {
	var names []string
	for _, e := range m.catalog {
		names = append(names, e.name)
	}
	return names
}

func (m *Manager) local(ctx context.Context) ([]string, error) {
	images, err := m.store.Images(ctx)
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names, err
}

func (m *Manager) setName(ctx context.Context, id, name string) error {
	_, err := m.store.UpdateImage(ctx, id, func(i *store.Image) error {
		i.Name = name
		return nil
	})
	return err
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

func (m *Manager) view(ctx context.Context, i store.Image) (api.Image, error) {
	vms, err := m.store.VMs(ctx)
	if err != nil {
		return api.Image{}, err
	}
	return toAPI(i, vms), nil
}

func toAPI(i store.Image, vms []store.VM) api.Image {
	return api.Image{
		Name: i.Name, Digest: i.Digest, Kind: i.Kind, Reference: i.Reference, Kernel: i.Kernel, SizeBytes: i.SizeBytes,
		CreatedAt: i.CreatedAt, UsedBy: usedBy(vms, i.ID), Source: i.Source,
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

// usedBy names the VMs made from the image.
func usedBy(vms []store.VM, id string) []string {
	names := []string{}
	for _, vm := range vms {
		if vm.ImageID == id {
			names = append(names, vm.Name)
		}
	}
	return names
}

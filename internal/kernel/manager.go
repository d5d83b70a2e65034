package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"maps"
	"os"
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
	InsertKernel(ctx context.Context, k store.Kernel) error
	UpdateKernel(ctx context.Context, id string, change func(*store.Kernel) error) (store.Kernel, error)
	Kernel(ctx context.Context, id string) (store.Kernel, error)
	KernelByName(ctx context.Context, name string) (store.Kernel, error)
	Kernels(ctx context.Context) ([]store.Kernel, error)
	DeleteKernel(ctx context.Context, id string) error
	VMs(ctx context.Context) ([]store.VM, error)
}

// Options are the host's part, and what tests change.
type Options struct {
	// Default is the kernel an empty name means; empty is DefaultName.
	Default string
	// Mirror is the configuration's debian_mirror; empty means the host's own.
	Mirror string
	Now    func() time.Time
	// Build makes a kernel from a recipe; nil means Build of this package.
	Build func(ctx context.Context, dir layout.KernelDir, recipe Recipe, opt BuildOptions) (Manifest, error)
}

// Manager finds, pulls and lists kernels. Its methods may be called from several
// goroutines.
type Manager struct {
	layout  layout.Layout
	opt     Options
	catalog []entry
	pulls   *pull.Puller[store.Kernel, api.Kernel]
}

// New makes a manager and registers its operation kernel.pull. The caller calls
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
	m.pulls = pull.New(pull.Noun[store.Kernel, api.Kernel]{
		Name: "kernel", Catalog: m.entries, Make: m.make, Check: m.check, View: toAPI,
		Dir:    func(id string) string { return l.Kernel(id).Dir },
		ID:     func(k store.Kernel) string { return k.ID },
		NameOf: func(k *store.Kernel) *string { return &k.Name },
		Digest: func(k store.Kernel) string { return k.ID }, // its own is of vmlinux alone
		UsedID: func(vm store.VM) string { return vm.KernelID },
		Insert: s.InsertKernel, Update: s.UpdateKernel, ByID: s.Kernel, ByName: s.KernelByName, All: s.Kernels, Delete: s.DeleteKernel, VMs: s.VMs,
	}, l.Staging(), ops, log)
	return m
}

// Recover tidies up after a daemon that died: half-made kernels, and kernels that
// lost their name and that no VM uses. It is called at start, before anything
// is pulled or created.
func (m *Manager) Recover(ctx context.Context) error { return m.pulls.Recover(ctx) }

// Resolve gives the kernel a reference names: an exact name or id of one that is
// here, or a name of the catalog, pulled as the policy (missing, always, never;
// empty is missing) allows. report, which may be nil, is told of a pull's
// progress. Cancelling ctx ends the wait, not the pull.
func (m *Manager) Resolve(ctx context.Context, ref, policy string, report pull.Report) (store.Kernel, error) {
	if ref == "" {
		ref = m.opt.Default
	}
	return m.pulls.Resolve(ctx, ref, policy, report)
}

// Pull begins, or joins, the pull of a kernel of the catalog.
func (m *Manager) Pull(ctx context.Context, req api.Pull) (api.Operation, error) {
	return m.pulls.Pull(ctx, req.Name, req.Force)
}

// List gives the kernels that are here, oldest first.
func (m *Manager) List(ctx context.Context) ([]api.Kernel, error) { return m.pulls.List(ctx) }

// Show gives one kernel by its exact name or id.
func (m *Manager) Show(ctx context.Context, ref string) (api.Kernel, error) {
	return m.pulls.Show(ctx, ref)
}

// Catalog lists what can be pulled.
func (m *Manager) Catalog(ctx context.Context) ([]api.CatalogEntry, error) {
	return m.pulls.Catalog(ctx)
}

// check looks whether the kernel's files are whole.
func (m *Manager) check(k store.Kernel) (wrong string, err error) {
	dir := m.layout.Kernel(k.ID)
	manifest, err := ReadManifest(dir)
	if err != nil {
		return "", err
	}
	size, err := sizeOf(dir)
	if err != nil {
		return "", err
	}
	if size != manifest.SizeBytes || manifest.Digest != k.Digest {
		wrong = dir.Dir + " does not hold what its manifest says"
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

// make builds the kernel of a catalog entry in dir.
func (m *Manager) make(ctx context.Context, name, dir, tempDir string, report func(debian.Progress)) (store.Kernel, error) {
	var e entry
	for _, c := range m.catalog {
		if c.name == name {
			e = c
		}
	}
	if e.recipe == nil {
		return store.Kernel{}, api.Errorf(api.KindUnsupported, "cannot pull kernel %q: this banger does not know how", name)
	}
	mirrors, err := debian.FindMirrors(m.opt.Mirror)
	if err != nil {
		return store.Kernel{}, err
	}
	manifest, err := m.opt.Build(ctx, layout.KernelDir{Dir: dir}, *e.recipe, BuildOptions{
		Mirrors: mirrors, AptOptions: debian.HostAptOptions(ctx), TempDir: tempDir, Report: report,
	})
	if err != nil {
		return store.Kernel{}, err
	}
	id, err := idOf(layout.KernelDir{Dir: dir}, manifest.Digest)
	if err != nil {
		return store.Kernel{}, err
	}
	source := map[string]string{}
	maps.Copy(source, manifest.Source)
	source["kind"], source["reference"] = e.kind(), name
	return store.Kernel{
		ID: id, Name: name, Version: manifest.Release, Arch: manifest.Arch, Digest: manifest.Digest,
		SizeBytes: manifest.SizeBytes, Source: source, CreatedAt: m.opt.Now().UTC(),
	}, nil
}

// idOf is the id of a kernel: the beginning of a digest of what a guest boots
// from, vmlinux and the modules it needs before its disks. The other modules lie
// in a file system that no two builds make the same.
func idOf(dir layout.KernelDir, vmlinux string) (string, error) {
	f, err := os.Open(dir.BootModules())
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	_, _ = io.WriteString(sum, vmlinux+"\n")
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func toAPI(k store.Kernel, usedBy []string, changed bool) api.Kernel {
	return api.Kernel{
		Name: k.Name, Version: k.Version, Arch: k.Arch, Digest: k.Digest, SizeBytes: k.SizeBytes,
		Source: k.Source, CreatedAt: k.CreatedAt, UsedBy: usedBy, Changed: changed,
	}
}

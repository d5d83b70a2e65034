package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// Store keeps the durable records; *store.DB is the real one.
type Store interface {
	PublishKernel(ctx context.Context, k store.Kernel, take func(holder store.Kernel) error) error
	Kernel(ctx context.Context, id string) (store.Kernel, error)
	KernelByName(ctx context.Context, name string) (store.Kernel, error)
	Kernels(ctx context.Context) ([]store.Kernel, error)
	DeleteKernel(ctx context.Context, id string) error
	KernelInUse(ctx context.Context, id string) error
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
	// CanBuild says why a package cannot be had on this host; nil looks, unless
	// Build is another's.
	CanBuild func(catalog.Debian) error
	// Catalog has what can be pulled by name; nil means banger's own.
	Catalog Catalog
	// Downloads gets kernels that are a file at an address; nil means that none
	// can be had so.
	Downloads Downloads
}

// Manager finds, pulls and lists kernels. Its methods may be called from several
// goroutines.
type Manager struct {
	layout layout.Layout
	ops    *operation.Registry
	opt    Options
	store  Store
	pulls  *pull.Puller[store.Kernel, api.Kernel]
}

// New makes a manager and registers its operations kernel.pull and kernel.import. The caller calls
// Recover before it lets anybody pull.
func New(l layout.Layout, s Store, ops *operation.Registry, log *slog.Logger, opt Options) *Manager {
	if opt.CanBuild == nil {
		opt.CanBuild = canBuild
		if opt.Build != nil {
			opt.CanBuild = func(catalog.Debian) error { return nil }
		}
	}
	if opt.Build == nil {
		opt.Build = Build
	}
	if opt.Catalog == nil {
		opt.Catalog = catalog.Own()
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Default == "" {
		opt.Default = DefaultName
	}
	m := &Manager{layout: l, ops: ops, opt: opt, store: s}
	m.pulls = pull.New(pull.Noun[store.Kernel, api.Kernel]{
		Name: "kernel", Kinds: []string{"kernel.pull", importOperation}, Forget: true,
		Catalog: m.entries, Known: m.known, Plan: m.plan, Check: m.check, View: toAPI,
		Mend:      mend,
		Dir:       func(id string) string { return l.Kernel(id).Dir },
		ID:        func(k store.Kernel) string { return k.ID },
		NameOf:    func(k *store.Kernel) *string { return &k.Name },
		Reference: func(k store.Kernel) string { return k.Source["reference"] },
		UsedID:    func(vm store.VM) string { return vm.KernelID },
		Publish:   s.PublishKernel, ByID: s.Kernel, ByName: s.KernelByName, All: s.Kernels, VMs: s.VMs,
		Remove: func(ctx context.Context, k store.Kernel, _ bool) (bool, error) {
			return true, s.DeleteKernel(ctx, k.ID)
		},
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

// Pull begins the pull of a kernel of the catalog.
func (m *Manager) Pull(ctx context.Context, req api.Pull) (api.Operation, error) {
	job, err := m.known(ctx, req.Name)
	if err != nil {
		return api.Operation{}, err
	}
	job.Force = req.Force
	return m.pulls.Begin(ctx, job)
}

// List gives the kernels that are here, oldest first.
func (m *Manager) List(ctx context.Context) ([]api.Kernel, error) { return m.pulls.List(ctx) }

// Show gives one kernel by its exact name or id.
func (m *Manager) Show(ctx context.Context, ref string) (api.Kernel, error) {
	return m.pulls.Show(ctx, ref)
}

// Catalog lists what can be pulled.
func (m *Manager) Catalog(ctx context.Context, refresh bool) ([]api.CatalogEntry, error) {
	return m.pulls.Catalog(ctx, refresh)
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

// fromCatalog is the kind of source that is a name of the catalog.
const fromCatalog = "catalog"

// known is how to get a kernel by its bare name.
func (m *Manager) known(ctx context.Context, name string) (pull.Job, error) {
	_, err := m.opt.Catalog.Find(ctx, catalog.Kernels, name)
	if api.KindOf(err) == api.KindNotFound {
		return pull.Job{}, m.pulls.Unknown(ctx, name)
	}
	return pull.Job{Name: name, Source: pull.Source{Kind: fromCatalog, Ref: name}}, err
}

// plan looks at what a kernel is made from.
func (m *Manager) plan(ctx context.Context, job pull.Job, _ pull.Report) (pull.Plan[store.Kernel], error) {
	if job.Source.Kind == fromPath {
		return m.planImport(job), nil
	}
	if job.Source.Kind == fromBundle {
		return m.planFiles(job)
	}
	return m.planEntry(ctx, job.Source.Ref)
}

// make builds the kernel of a recipe in dir.
func (m *Manager) make(ctx context.Context, recipe Recipe, dir, tempDir string, report pull.Report) (store.Kernel, error) {
	mirrors, err := debian.FindMirrors(m.opt.Mirror)
	if err != nil {
		return store.Kernel{}, err
	}
	manifest, err := m.opt.Build(ctx, layout.KernelDir{Dir: dir}, recipe, BuildOptions{
		Mirrors: mirrors, AptOptions: debian.HostAptOptions(ctx), TempDir: tempDir, Report: pull.Debian(report),
	})
	if err != nil {
		return store.Kernel{}, err
	}
	id, err := idOf(layout.KernelDir{Dir: dir}, manifest.Digest)
	if err != nil {
		return store.Kernel{}, err
	}
	return m.record(manifest, id), nil
}

// record is that of a kernel just made.
func (m *Manager) record(manifest Manifest, id string) store.Kernel {
	return store.Kernel{
		ID: id, Version: manifest.Release, Arch: manifest.Arch, Digest: manifest.Digest, SizeBytes: manifest.SizeBytes,
		Source: manifest.Source, Warnings: manifest.Warnings, CreatedAt: m.opt.Now().UTC(),
	}
}

// mend is a command that makes the files of a kernel whole again.
func mend(k store.Kernel) string {
	if path := k.Source["path"]; path != "" {
		return "banger kernel import " + path + " --name " + k.Name
	}
	return "banger kernel pull " + k.Name + " --force"
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

func toAPI(k store.Kernel, usedBy []string, changed bool, _ *store.Kernel) api.Kernel {
	return api.Kernel{
		ID: k.ID, Name: k.Name, Version: k.Version, Arch: k.Arch, Digest: k.Digest, SizeBytes: k.SizeBytes,
		Source: k.Source, CreatedAt: k.CreatedAt, UsedBy: usedBy, Warnings: k.Warnings, Changed: changed,
	}
}

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
	store   Store
	opt     Options
	catalog []entry
	pulls   *pull.Puller[store.Kernel]
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
	m := &Manager{layout: l, store: s, opt: opt, catalog: embedded()}
	m.pulls = pull.New(pull.Noun[store.Kernel]{
		Name: "kernel", Find: m.find, Check: m.check, Catalog: m.names, Local: m.local, Make: m.make,
		ID:     func(k store.Kernel) string { return k.ID },
		Digest: func(k store.Kernel) string { return k.ID }, // its own is of vmlinux alone
		Dir:    func(id string) string { return l.Kernel(id).Dir },
		Insert: s.InsertKernel, SetName: m.setName, Delete: s.DeleteKernel,
		Result: func(ctx context.Context, k store.Kernel, changed bool) (any, error) {
			v, err := m.view(ctx, k)
			v.Changed = changed
			return v, err
		},
	}, l.Staging(), ops, log)
	return m
}

// Recover tidies up after a daemon that died: half-made kernels, and kernels that
// lost their name and that no VM uses. It is called at start, before anything
// is pulled or created.
func (m *Manager) Recover(ctx context.Context) error {
	err := m.pulls.Recover(ctx)
	kernels, lerr := m.store.Kernels(ctx)
	vms, verr := m.store.VMs(ctx)
	if lerr != nil || verr != nil {
		return errors.Join(err, lerr, verr)
	}
	for _, k := range kernels {
		if k.Name != "" || len(usedBy(vms, k.ID)) > 0 {
			continue
		}
		if derr := m.store.DeleteKernel(ctx, k.ID); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		err = errors.Join(err, os.RemoveAll(m.layout.Kernel(k.ID).Dir))
	}
	return err
}

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
func (m *Manager) List(ctx context.Context) ([]api.Kernel, error) {
	kernels, err := m.store.Kernels(ctx)
	if err != nil {
		return nil, err
	}
	vms, err := m.store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]api.Kernel, 0, len(kernels))
	for _, k := range kernels {
		list = append(list, toAPI(k, vms))
	}
	return list, nil
}

// Show gives one kernel by its exact name or id.
func (m *Manager) Show(ctx context.Context, ref string) (api.Kernel, error) {
	k, err := m.find(ctx, ref)
	if err != nil {
		return api.Kernel{}, err
	}
	return m.view(ctx, k)
}

// Catalog lists what can be pulled.
func (m *Manager) Catalog(ctx context.Context) ([]api.CatalogEntry, error) {
	kernels, err := m.store.Kernels(ctx)
	if err != nil {
		return nil, err
	}
	here := map[string]bool{}
	for _, k := range kernels {
		here[k.Name] = true
	}
	list := make([]api.CatalogEntry, 0, len(m.catalog))
	for _, e := range m.catalog {
		list = append(list, e.api(here[e.name]))
	}
	return list, nil
}

// find gives the record with the exact name, else the exact id.
func (m *Manager) find(ctx context.Context, ref string) (store.Kernel, error) {
	k, err := m.store.KernelByName(ctx, ref)
	if api.KindOf(err) != api.KindNotFound {
		return k, err
	}
	k, ierr := m.store.Kernel(ctx, ref)
	if api.KindOf(ierr) != api.KindNotFound {
		return k, ierr
	}
	return store.Kernel{}, api.AsError(err).WithHint("banger kernel list")
}

// check looks whether the kernel's files are whole. None of its errors is of
// kind not-found: the record says that the kernel is here.
func (m *Manager) check(_ context.Context, k store.Kernel) error {
	dir := m.layout.Kernel(k.ID)
	manifest, err := ReadManifest(dir)
	if err == nil {
		var size int64
		for _, p := range []string{dir.VMLinux(), dir.Modules(), dir.BootModules()} {
			var fi os.FileInfo
			if fi, err = os.Stat(p); err != nil {
				break
			}
			size += fi.Size()
		}
		if err == nil && (size != manifest.SizeBytes || manifest.Digest != k.Digest) {
			return api.Errorf(api.KindInternal, "cannot use kernel %q: %s does not hold what its manifest says", k.Name, dir.Dir).
				WithHint("banger kernel pull %s --force", k.Name)
		}
	}
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return api.Errorf(api.KindBadState, "cannot use kernel %q: its files are gone: %w", k.Name, err).
			WithHint("banger kernel pull %s --force", k.Name)
	case errors.Is(err, os.ErrPermission):
		return api.Errorf(api.KindDenied, "cannot use kernel %q: %w", k.Name, err).WithHint("ls -ld %s", dir.Dir)
	}
	return fmt.Errorf("cannot use kernel %q: %w", k.Name, err)
}

func (m *Manager) names() []string {
	var names []string
	for _, e := range m.catalog {
		names = append(names, e.name)
	}
	return names
}

func (m *Manager) local(ctx context.Context) ([]string, error) {
	kernels, err := m.store.Kernels(ctx)
	var names []string
	for _, k := range kernels {
		names = append(names, k.Name)
	}
	return names, err
}

func (m *Manager) setName(ctx context.Context, id, name string) error {
	_, err := m.store.UpdateKernel(ctx, id, func(k *store.Kernel) error {
		k.Name = name
		return nil
	})
	return err
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

func (m *Manager) view(ctx context.Context, k store.Kernel) (api.Kernel, error) {
	vms, err := m.store.VMs(ctx)
	if err != nil {
		return api.Kernel{}, err
	}
	return toAPI(k, vms), nil
}

func toAPI(k store.Kernel, vms []store.VM) api.Kernel {
	return api.Kernel{
		Name: k.Name, Version: k.Version, Arch: k.Arch, Digest: k.Digest, SizeBytes: k.SizeBytes,
		Source: k.Source, CreatedAt: k.CreatedAt, UsedBy: usedBy(vms, k.ID),
	}
}

// usedBy names the VMs made from the kernel.
func usedBy(vms []store.VM, id string) []string {
	names := []string{}
	for _, vm := range vms {
		if vm.KernelID == id {
			names = append(names, vm.Name)
		}
	}
	return names
}

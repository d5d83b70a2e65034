package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// fromBundle is the kind of source that is a folder with the files of a kernel,
// which came in a bundle and is ours to take.
const fromBundle = "bundle"

// Files is the folder of the kernel with the exact name or id, which is here and
// whole.
func (m *Manager) Files(ctx context.Context, name string) (layout.KernelDir, error) {
	k, err := m.pulls.Local(ctx, name)
	if api.KindOf(err) == api.KindNotFound {
		return layout.KernelDir{}, api.Errorf(api.KindNotFound, "cannot find kernel %q: it is not here", name).WithHint("banger kernel pull %s", name)
	}
	return m.layout.Kernel(k.ID), err
}

// Install takes over the files of a kernel that came in a bundle, and gives its
// name here. Where a kernel that boots the same is here, that one is meant and
// nothing is taken: its modules are vouched for by whoever brought it. The wanted
// name is given only where it is free and no catalog has it, or a bundle could
// put its kernel under every image that boots the catalog's; else the name gets
// the beginning of the id behind it.
func (m *Manager) Install(ctx context.Context, dir layout.KernelDir, name string) (string, error) {
	manifest, err := checkFiles(dir)
	if err != nil {
		return "", err
	}
	boots, err := idOf(dir, manifest.Digest)
	if err != nil {
		return "", err
	}
	id, err := idWithModules(dir, boots)
	if err != nil {
		return "", err
	}
	for _, same := range []string{boots, id} {
		if k, err := m.pulls.Local(ctx, same); err == nil && k.Name != "" {
			return k.Name, nil
		}
	}
	other := name[:min(len(name), 54)] + "-" + id[:8]
	_, err = m.pulls.Find(ctx, name)
	if m.inCatalog(ctx, name) || api.KindOf(err) != api.KindNotFound {
		name = other
	}
	for {
		op, err := m.pulls.Begin(ctx, pull.Job{Name: name, Named: true, Source: pull.Source{Kind: fromBundle, Ref: dir.Dir}})
		if err != nil {
			return "", err
		}
		end, err := m.ops.Wait(ctx, op.ID)
		switch {
		case err != nil:
			return "", err
		case end.Status == api.OperationSucceeded:
			return name, nil
		case end.Error != nil && end.Error.Kind == api.KindExists && name != other:
			name = other // another took it meanwhile
		case end.Error != nil:
			return "", end.Error
		default:
			return "", api.Errorf(api.KindCancelled, "cannot install kernel %q: it was cancelled", name)
		}
	}
}

// inCatalog says whether a catalog has the name.
func (m *Manager) inCatalog(ctx context.Context, name string) bool {
	for _, i := range m.opt.Catalog.List(ctx, catalog.Kernels, false) {
		if i.Name == name {
			return true
		}
	}
	return false
}

// checkFiles looks whether the files are those of a kernel this host can boot,
// and what their manifest says.
func checkFiles(dir layout.KernelDir) (Manifest, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return m, api.Errorf(api.KindInvalid, "cannot use the bundle's kernel: %w", err)
	}
	f, err := os.Open(dir.VMLinux())
	if err != nil {
		return m, err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return m, err
	}
	size, err := sizeOf(dir)
	switch {
	case err != nil:
		return m, err
	case m.Digest != "sha256:"+hex.EncodeToString(sum.Sum(nil)), m.SizeBytes != size:
		return m, api.Errorf(api.KindInvalid, "cannot use the bundle's kernel: its files are not what its manifest says")
	case m.Arch != runtime.GOARCH:
		return m, api.Errorf(api.KindUnsupported, "cannot use the bundle's kernel: it is for %.40q, and this host is %s", m.Arch, runtime.GOARCH)
	}
	return m, nil
}

// idWithModules is the id of a kernel from a bundle. That of others leaves the
// modules out, which were made here from the same package; nobody says so of
// those in a bundle.
func idWithModules(dir layout.KernelDir, boots string) (string, error) {
	f, err := os.Open(dir.Modules())
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	_, _ = io.WriteString(sum, boots+"\n")
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// planFiles is the plan for files that came in a bundle.
func (m *Manager) planFiles(job pull.Job) (pull.Plan[store.Kernel], error) {
	from := layout.KernelDir{Dir: job.Source.Ref}
	manifest, err := ReadManifest(from)
	if err != nil {
		return pull.Plan[store.Kernel]{}, err
	}
	boots, err := idOf(from, manifest.Digest)
	if err != nil {
		return pull.Plan[store.Kernel]{}, err
	}
	id, err := idWithModules(from, boots)
	if err != nil {
		return pull.Plan[store.Kernel]{}, err
	}
	k := store.Kernel{
		ID: id, Version: manifest.Release, Arch: manifest.Arch, Digest: manifest.Digest, SizeBytes: manifest.SizeBytes,
		Source: manifest.Source, CreatedAt: m.opt.Now().UTC(),
	}
	return pull.Plan[store.Kernel]{
		ID: id, Key: "bundle " + id,
		Describe: func(k store.Kernel) store.Kernel {
			source := map[string]string{}
			for key, value := range k.Source {
				source[key] = value
			}
			source["kind"], source["reference"] = fromBundle, job.Name
			k.Source = source
			return k
		},
		Make: func(_ context.Context, dir, _ string, _ pull.Report) (store.Kernel, error) {
			to := layout.KernelDir{Dir: dir}
			for _, move := range [][2]string{
				{from.VMLinux(), to.VMLinux()}, {from.Modules(), to.Modules()}, {from.BootModules(), to.BootModules()}, {from.Manifest(), to.Manifest()},
			} {
				if err := os.Rename(move[0], move[1]); err != nil {
					return store.Kernel{}, err
				}
			}
			return k, nil
		},
	}, nil
}

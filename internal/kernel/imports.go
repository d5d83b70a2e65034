package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// The kind of the operation, and of its source: a path of the user's.
const (
	importOperation = "kernel.import"
	fromPath        = "path"
)

// What else an import was asked for, in its source.
const (
	withModules   = "modules"
	withUnchecked = "unchecked"
)

// Import begins making a kernel of what the user has.
func (m *Manager) Import(ctx context.Context, req api.ImportKernel) (api.Operation, error) {
	for what, path := range map[string]string{"path": req.Path, "modules": req.Modules} {
		if (path != "" || what == "path") && !filepath.IsAbs(path) {
			return api.Operation{}, api.Errorf(api.KindInvalid, "cannot import kernel: %s %.200q is not absolute", what, path)
		}
	}
	if err := pull.CheckName("kernel", req.Name); err != nil {
		return api.Operation{}, api.AsError(err).WithHint("banger kernel import --help")
	}
	with := map[string]string{}
	if req.Modules != "" {
		with[withModules] = filepath.Clean(req.Modules)
	}
	if req.Unchecked {
		with[withUnchecked] = "yes"
	}
	return m.pulls.Begin(ctx, pull.Job{
		Kind: importOperation, Name: req.Name, Named: true, Replace: req.Replace,
		Source: pull.Source{Kind: fromPath, Ref: filepath.Clean(req.Path), With: with},
	})
}

// planImport looks at nothing: what is at a path is read once, when it is copied.
func (m *Manager) planImport(job pull.Job) pull.Plan[store.Kernel] {
	return pull.Plan[store.Kernel]{
		Describe: func(k store.Kernel) store.Kernel { return k },
		Make: func(ctx context.Context, dir, _ string, report pull.Report) (store.Kernel, error) {
			d := layout.KernelDir{Dir: dir}
			manifest, err := Import(ctx, d, ImportOptions{
				Name: job.Name, Path: job.Source.Ref, Modules: job.Source.With[withModules], Unchecked: job.Source.With[withUnchecked] != "",
				Report: pull.Debian(report),
			})
			if err != nil {
				return store.Kernel{}, err
			}
			// What we make of the same content may change with our version.
			made, err := idOf(d, manifest.Content)
			if err != nil {
				return store.Kernel{}, err
			}
			return m.record(manifest, importID(job.Name, made)), nil
		},
	}
}

// importID is the id of an imported kernel. The name is part of it: a kernel has
// one, and the same under another is another kernel.
func importID(name, made string) string {
	sum := sha256.Sum256([]byte(name + "\n" + made))
	return hex.EncodeToString(sum[:])[:16]
}

// Delete forgets a kernel by its exact name or id, and removes its files. It is
// of kind bad-state, naming them, while VMs or images use it. A dry run only says
// what would come of it.
func (m *Manager) Delete(ctx context.Context, ref string, dryRun bool) (api.Result, error) {
	var k store.Kernel
	var err error
	if dryRun {
		if k, err = m.pulls.Find(ctx, ref); err == nil {
			err = m.store.KernelInUse(ctx, k.ID)
		}
	} else {
		k, _, err = m.pulls.Delete(ctx, ref)
	}
	if err != nil {
		return api.Result{}, err
	}
	return api.Result{Ref: ref, ID: k.ID, OK: true, Changed: true}, nil
}

package image

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/bundle"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
)

// kindBundle is the kind of the operation that writes a bundle.
const kindBundle = "image.bundle"

// bundleParams are its parameters.
type bundleParams struct {
	Ref string `json:"ref"`
	api.BundleImage
}

// Bundle begins writing an image to one file. The operation's result is an
// api.Bundle.
func (m *Manager) Bundle(ctx context.Context, ref string, req api.BundleImage) (api.Operation, error) {
	if !filepath.IsAbs(req.Path) {
		return api.Operation{}, api.Errorf(api.KindInvalid, "cannot bundle image %q: %q is not an absolute path", clip(ref), clip(req.Path))
	}
	req.Path = filepath.Clean(req.Path)
	if _, err := m.pulls.Find(ctx, ref); err != nil {
		return api.Operation{}, err
	}
	op, err := m.ops.Begin(ctx, kindBundle, ref, bundleParams{Ref: ref, BundleImage: req})
	if err != nil {
		return api.Operation{}, err
	}
	return op.Snapshot(), nil
}

func (m *Manager) bundleSteps(*operation.Op) ([]operation.Step, error) {
	return []operation.Step{{Name: "write", Do: m.writeBundle, Undo: m.removePartial}}, nil
}

// partial is the name a bundle has until it is whole: its operation's own.
func partial(op *operation.Op, path string) string {
	return filepath.Join(filepath.Dir(path), "."+op.ID()+".banger-partial")
}

func (m *Manager) writeBundle(ctx context.Context, op *operation.Op) error {
	var in bundleParams
	if err := op.Params(&in); err != nil {
		return err
	}
	op.Stage("looking at the image")
	i, err := m.pulls.Find(ctx, in.Ref)
	if err != nil {
		return err
	}
	content, files, err := m.toBundle(ctx, i, in.WithKernel)
	if err != nil {
		return err
	}
	if op.TakenUp() { // what an earlier daemon left
		if err := os.Remove(partial(op, in.Path)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	op.Stage("writing " + filepath.Base(in.Path))
	info, err := bundle.WriteFile(ctx, in.Path, partial(op, in.Path), in.Replace, func(w io.Writer) (bundle.Info, error) {
		return bundle.Write(ctx, w, "image", content, files, func(done, total int64) { op.Progress(done, total, "bytes") })
	})
	if api.KindOf(err) == api.KindExists {
		err = api.Errorf(api.KindExists, "%w; --replace overwrites it", err)
	}
	if err != nil {
		return err
	}
	result := api.Bundle{Path: in.Path, Digest: info.Digest, SizeBytes: info.SizeBytes, Image: in.Ref, Members: []api.BundleMember{}}
	if in.WithKernel {
		result.Kernel = content.Kernel
	}
	for _, f := range info.Manifest.Members {
		result.Members = append(result.Members, api.BundleMember{Name: f.Name, SizeBytes: f.SizeBytes, DataBytes: f.DataBytes, Digest: f.Digest})
	}
	return op.SetResult(result)
}

// toBundle says what goes into the bundle of an image.
func (m *Manager) toBundle(ctx context.Context, i store.Image, withKernel bool) (bundled, []bundle.File, error) {
	dir := m.layout.Image(i.ID)
	root, err := m.Usable(i)
	if err != nil {
		return bundled{}, nil, err
	}
	d := bundled{Name: i.Name, Arch: runtime.GOARCH, Kernel: first(i.Kernel, DefaultKernel), Config: i.Config, Source: map[string]string{}}
	maps.Copy(d.Source, i.Source)
	delete(d.Source, "bundle") // of the one it came in
	delete(d.Source, "kernel")
	delete(d.Source, "path") // the user's own folders are nobody's business
	if man, err := ReadManifest(dir); err == nil {
		d.Packages = man.Packages
	}
	files := []bundle.File{{Name: memberRoot, Path: root}}
	if seed := filepath.Join(dir.Dir, memberSeed); exists(seed) {
		files = append(files, bundle.File{Name: memberSeed, Path: seed})
	}
	if !withKernel {
		return d, files, nil
	}
	kernel, err := m.opt.Kernels.Files(ctx, d.Kernel)
	if err != nil {
		return d, nil, err
	}
	names := kernelFiles(layout.KernelDir{Dir: kernelFolder})
	for n, path := range kernelFiles(kernel) {
		files = append(files, bundle.File{Name: filepath.ToSlash(names[n]), Path: path})
	}
	return d, files, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// removePartial takes back what was not finished. A bundle that was finished has
// another name, and stays.
func (m *Manager) removePartial(_ context.Context, op *operation.Op) error {
	var in bundleParams
	if err := op.Params(&in); err != nil {
		return err
	}
	if err := os.Remove(partial(op, in.Path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

package image

import (
	"archive/tar"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci"
	"github.com/bangervm/banger/internal/oci/ocitest"
	"github.com/bangervm/banger/internal/pull/pulltest"
)

// withOCI is a manager with a real client of real registries.
func withOCI(t *testing.T, root string) (*fixture, *oci.Blobs) {
	t.Helper()
	h, b := pulltest.NewHost(t, root), &builder{}
	blobs := oci.OpenBlobs(h.L.Blobs())
	client, err := oci.New(oci.Options{Blobs: blobs, Stall: 2 * time.Second, Tries: 2})
	pulltest.Must(t, err)
	opt := Options{Build: b.build, Registries: client, Parse: Reference, Blobs: cache{blobs}}
	return &fixture{New(h.L, h.DB, h.Ops, h.Log, opt), h, b}, blobs
}

type cache struct{ *oci.Blobs }

func (c cache) Prune(keep map[string]bool, dry bool) (int, int64, error) {
	gone, err := c.Blobs.Prune(keep, dry)
	var n int64
	for _, g := range gone {
		n += g.Size
	}
	return len(gone), n, err
}

// cat reads a file of an image's root file system, with e2fsprogs.
func (f *fixture) cat(t *testing.T, i api.Image, path string) string {
	t.Helper()
	out, err := exec.Command("debugfs", "-R", "cat "+path, f.L.Image(i.ID).RootFS()).Output()
	pulltest.Must(t, err)
	return string(out)
}

// two layers, of which the second changes a file of the first and removes another.
func two(t *testing.T, version string) v1.Image {
	return ocitest.Image(t, v1.Config{Env: []string{"A=b"}, WorkingDir: "/srv", User: "app", Entrypoint: []string{"/app"}, Cmd: []string{"serve"}},
		ocitest.Gzip(ocitest.Tar(t, ocitest.Dir("etc"), ocitest.File("etc/os-release", "ID=base\n"), ocitest.File("etc/gone", "x"))),
		ocitest.Zstd(ocitest.Tar(t, ocitest.File("etc/os-release", "ID="+version+"\n"), ocitest.File("etc/.wh.gone", ""))))
}

func TestPullFromARealRegistry(t *testing.T) {
	t.Parallel()
	f, _ := withOCI(t, t.TempDir())
	reg := ocitest.Start(t)
	digest := reg.Push(t, "team/app:v1", two(t, "one"))
	ref := reg.Ref("team/app:v1")
	i := f.mustPull(t, api.PullImage{Name: ref})
	if i.Name != ref || i.Reference != ref || i.ReferenceDigest != digest || i.Kind != KindOCI || i.Kernel != DefaultKernel || i.Source[sourceManifest] != digest {
		t.Errorf("%+v", i)
	}
	if c := i.Config; !slices.Equal(c.Env, []string{"A=b"}) || c.Workdir != "/srv" || c.User != "app" || !slices.Equal(c.Entrypoint, []string{"/app"}) || !slices.Equal(c.Cmd, []string{"serve"}) {
		t.Errorf("%+v", c)
	}
	if got := f.cat(t, i, "/etc/os-release"); got != "ID=one\n" {
		t.Errorf("os-release: %q", got)
	}
	if got := f.cat(t, i, "/etc/gone"); got != "" {
		t.Errorf("removed file: %q", got)
	}
	if out, err := exec.Command("e2fsck", "-fn", f.L.Image(i.ID).RootFS()).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	// By digest it is the same image under another name.
	byDigest := reg.Ref("team/app@" + digest)
	if j := f.mustPull(t, api.PullImage{Name: byDigest}); j.ID != i.ID || j.Name != byDigest || len(j.Names) != 2 {
		t.Errorf("%+v", j)
	}
	// The same image with a later push moves the name.
	reg.Push(t, "team/app:v1", two(t, "two"))
	j := f.mustPull(t, api.PullImage{Name: ref})
	if !j.Changed || j.PreviousDigest != i.Digest || f.cat(t, j, "/etc/os-release") != "ID=two\n" {
		t.Errorf("%+v", j)
	}
	if k := f.mustPull(t, api.PullImage{Name: ref}); k.Changed {
		t.Errorf("%+v", k)
	}
	f.NothingLeft(t)
	if _, err := f.Pull(t.Context(), api.PullImage{Name: ref, Platform: "linux/riscv64"}); api.KindOf(err) != api.KindUnsupported {
		t.Error(err)
	}
	// Force makes the same again, byte for byte.
	before, _, err := digestFile(t.Context(), f.L.Image(j.ID).RootFS(), nil)
	pulltest.Must(t, err)
	if k := f.mustPull(t, api.PullImage{Name: ref, Force: true}); k.Changed || k.ID != j.ID {
		t.Errorf("%+v", k)
	}
	pulltest.Must(t, os.Truncate(f.L.Image(j.ID).RootFS(), 3))
	if k := f.mustPull(t, api.PullImage{Name: ref, Force: true}); !k.Changed || k.ID != j.ID {
		t.Errorf("%+v", k)
	}
	after, _, err := digestFile(t.Context(), f.L.Image(j.ID).RootFS(), nil)
	if err != nil || before != after {
		t.Errorf("%s and %s, %v", before, after, err)
	}
}

// A registry that stalls or lies costs its own pull, and leaves nothing.
func TestPullFromAFaultyRegistry(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t)
	reg.Push(t, "team/app:v1", two(t, "one"))
	for name, fault := range map[string]ocitest.Fault{"stalls": {Stall: 5}, "gone": {Status: http.StatusInternalServerError}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _ := withOCI(t, t.TempDir())
			proxy := ocitest.StartProxy(t, reg, func(r *http.Request) ocitest.Fault {
				if ocitest.IsBlob(r) {
					return fault
				}
				return ocitest.Fault{}
			})
			_, err := f.pull(t, api.PullImage{Name: proxy.Ref("team/app:v1")})
			if api.KindOf(err) != api.KindUnavailable && api.KindOf(err) != api.KindTimeout {
				t.Errorf("%v (%s)", err, api.KindOf(err))
			}
			f.NothingLeft(t)
		})
	}
}

// What docker save or skopeo wrote is the image that a pull would have made.
func TestImportIsWhatAPullMakes(t *testing.T) {
	t.Parallel()
	f, _ := withOCI(t, t.TempDir())
	reg := ocitest.Start(t)
	image := two(t, "one")
	reg.Push(t, "team/app:v1", image)
	pulled := f.mustPull(t, api.PullImage{Name: reg.Ref("team/app:v1")})
	dir := t.TempDir()
	folder := filepath.Join(dir, "layout")
	p, err := layout.Write(folder, empty.Index)
	pulltest.Must(t, err)
	pulltest.Must(t, p.AppendImage(image))
	archive := filepath.Join(dir, "layout.tar")
	if out, err := exec.Command("tar", "-C", folder, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for name, path := range map[string]string{"as-folder": folder, "as-tar": archive} {
		op, err := f.Import(t.Context(), api.ImportImage{Path: path, Name: name, Kernel: "other"})
		pulltest.Must(t, err)
		i, aerr := f.end(t, op)
		if aerr != nil || i.ID != pulled.ID || !i.Changed || i.Kernel != "other" || i.Name != name {
			t.Errorf("%s: %+v %v", name, i, aerr)
		}
	}
	all, err := f.List(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("%d %v", len(all), err)
	}
	f.NothingLeft(t)
}

func TestImportOfARootFileSystem(t *testing.T) {
	t.Parallel()
	f, _ := withOCI(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "root.tar")
	pulltest.Must(t, os.WriteFile(path, ocitest.Tar(t, ocitest.Dir("etc"), ocitest.File("etc/os-release", "ID=tar\n"),
		ocitest.Entry{Name: "bin/sh", Body: "#!", Header: tar.Header{Mode: 0o755}}), 0o600))
	for n, want := range []bool{true, false} {
		op, err := f.Import(t.Context(), api.ImportImage{Path: path, Name: "tree"})
		pulltest.Must(t, err)
		i, aerr := f.end(t, op)
		if aerr != nil || i.Changed != want || i.Reference != path || f.cat(t, i, "/etc/os-release") != "ID=tar\n" {
			t.Errorf("%d: %+v %v", n, i, aerr)
		}
	}
	f.NothingLeft(t)
	for name, content := range map[string]string{"garbage": "no archive at all", "empty": ""} {
		bad := filepath.Join(t.TempDir(), name)
		pulltest.Must(t, os.WriteFile(bad, []byte(content), 0o600))
		op, err := f.Import(t.Context(), api.ImportImage{Path: bad, Name: name})
		pulltest.Must(t, err)
		if _, aerr := f.end(t, op); aerr == nil || aerr.Kind != api.KindInvalid || !strings.Contains(aerr.Message, bad) {
			t.Errorf("%s: %v", name, aerr)
		}
	}
	if _, err := f.Import(t.Context(), api.ImportImage{Path: "/no/such/file", Name: "x"}); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	f.NothingLeft(t)
}

// Layers stay in the cache while an image made of them is here.
func TestPruneFreesDownloads(t *testing.T) {
	t.Parallel()
	f, blobs := withOCI(t, t.TempDir())
	reg := ocitest.Start(t)
	reg.Push(t, "app:v1", two(t, "one"))
	f.mustPull(t, api.PullImage{Name: reg.Ref("app:v1"), As: "app"})
	have := func() int {
		list, err := blobs.List()
		pulltest.Must(t, err)
		return len(list)
	}
	if p, err := f.Prune(t.Context(), api.PruneImages{}); err != nil || p.Blobs != 0 || have() != 3 {
		t.Errorf("%+v %v, %d blobs", p, err, have())
	}
	reg.Push(t, "app:v2", two(t, "two"))
	f.mustPull(t, api.PullImage{Name: reg.Ref("app:v2"), As: "app", Replace: true})
	if p, err := f.Prune(t.Context(), api.PruneImages{}); err != nil || p.Blobs != 2 || len(p.Images) != 1 || have() != 3 {
		t.Errorf("%+v %v, %d blobs", p, err, have())
	}
	if _, err := f.Delete(context.WithoutCancel(t.Context()), "app"); err != nil {
		t.Error(err)
	}
	if p, err := f.Prune(t.Context(), api.PruneImages{}); err != nil || p.Blobs != 3 || have() != 0 {
		t.Errorf("%+v %v, %d blobs", p, err, have())
	}
}

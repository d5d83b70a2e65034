package kernel

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/pull/pulltest"
	"github.com/bangervm/banger/internal/store"
)

// importAs imports and waits for the end.
func (f *fixture) importAs(t *testing.T, req api.ImportKernel) (api.Kernel, error) {
	t.Helper()
	op, err := f.Import(t.Context(), req)
	if err != nil {
		return api.Kernel{}, err
	}
	op, err = f.Ops.Wait(t.Context(), op.ID)
	pulltest.Must(t, err)
	var k api.Kernel
	if op.Status != api.OperationSucceeded {
		return k, op.Error
	}
	pulltest.Must(t, json.Unmarshal(op.Result, &k))
	return k, nil
}

func TestImportKernelAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	dir := t.TempDir()
	one := put(t, filepath.Join(dir, "vmlinux"), vmlinux(true, banner, embeddedConfig(t, allBuiltin)))
	copied := put(t, filepath.Join(dir, "copied"), vmlinux(true, banner, embeddedConfig(t, allBuiltin)))
	other := put(t, filepath.Join(dir, "other"), vmlinux(true, banner, "other", embeddedConfig(t, allBuiltin)))
	first, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: one})
	if err != nil || !first.Changed || first.Name != "mine" || first.Version != "6.9.0-mine" || first.Source["path"] != one || len(first.Warnings) != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	for _, path := range []string{one, copied} {
		if k, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: path}); err != nil || k.Changed || k.ID != first.ID {
			t.Errorf("the same again: %+v, %v", k, err)
		}
	}
	if k, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: other}); api.KindOf(err) != api.KindExists {
		t.Errorf("another under the name: %+v, %v", k, err)
	}
	// Under another name it is another kernel, and the first stays.
	if k, err := f.importAs(t, api.ImportKernel{Name: "twin", Path: one}); err != nil || !k.Changed || k.ID == first.ID || k.Digest != first.Digest {
		t.Errorf("under another name: %+v, %v", k, err)
	}
	pulltest.Must(t, f.DB.InsertVM(t.Context(), store.VM{ID: "0011223344556677", Name: "web", KernelID: first.ID, CreatedAt: time.Now()}))
	moved, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: other, Replace: true})
	if err != nil || !moved.Changed || moved.ID == first.ID {
		t.Errorf("replaced: %+v, %v", moved, err)
	}
	if kept, err := f.Show(t.Context(), first.ID); err != nil || kept.Name != "" || len(kept.UsedBy) != 1 {
		t.Errorf("what web uses: %+v, %v", kept, err)
	}
	got, err := f.Resolve(t.Context(), "mine", "never", nil)
	if err != nil || got.ID != moved.ID {
		t.Errorf("%+v, %v", got, err)
	}
	f.NothingLeft(t)
	// Damaged, its hint is how to make it whole: again from where it came.
	pulltest.Must(t, os.Truncate(f.L.Kernel(moved.ID).VMLinux(), 3))
	_, err = f.Resolve(t.Context(), "mine", "", nil)
	if e := api.AsError(err); e == nil || e.Hint != "banger kernel import "+other+" --name mine" {
		t.Fatalf("%+v", e)
	}
	if _, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: other}); err != nil {
		t.Error(err)
	}
	if _, err := f.Resolve(t.Context(), "mine", "never", nil); err != nil {
		t.Error(err)
	}
}

func TestImportKernelRefusedBeforeItBegins(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	for name, req := range map[string]api.ImportKernel{
		"no name":          {Path: "/x"},
		"no path":          {Name: "mine"},
		"relative":         {Name: "mine", Path: "x"},
		"relative modules": {Name: "mine", Path: "/x", Modules: "y"},
		"a bad name":       {Name: "Mine", Path: "/x"},
		"a long name":      {Name: strings.Repeat("x", 64), Path: "/x"},
		"a hyphen":         {Name: "-x", Path: "/x"},
	} {
		if _, err := f.Import(t.Context(), req); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two imports of different kernels under one name at once: one wins, the other is
// told that the name is taken. Of the same kernel: both succeed.
func TestImportKernelRace(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		path := put(t, filepath.Join(dir, fmt.Sprint(i)), vmlinux(true, banner, fmt.Sprint(i%2), embeddedConfig(t, allBuiltin)))
		wg.Go(func() { _, errs[i] = f.importAs(t, api.ImportKernel{Name: "mine", Path: path}) })
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
		case api.KindOf(err) != api.KindExists:
			t.Error(err)
		}
		if (errs[i] == nil) != (errs[i%2] == nil) {
			t.Errorf("the same kernel: %v and %v", errs[i], errs[i%2])
		}
	}
	if won != 2 {
		t.Errorf("%d won: %v", won, errs)
	}
	f.NothingLeft(t)
}

// Of a delete and the creation of a VM exactly one wins, whichever comes first.
func TestKernelDeleteAndCreateHaveOneWinner(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	path := put(t, filepath.Join(t.TempDir(), "vmlinux"), vmlinux(true, banner, embeddedConfig(t, allBuiltin)))
	for i := range 20 {
		k, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: path})
		pulltest.Must(t, err)
		vm := store.VM{ID: fmt.Sprintf("%016d", i), Name: fmt.Sprint("web-", i), KernelID: k.ID, KernelName: "mine", CreatedAt: time.Now()}
		var wg sync.WaitGroup
		var created, deleted error
		wg.Go(func() { created = f.DB.InsertVM(t.Context(), vm) })
		wg.Go(func() { _, deleted = f.Delete(t.Context(), "mine", false) })
		wg.Wait()
		_, err = os.Stat(f.L.Kernel(k.ID).VMLinux())
		switch {
		case created == nil && api.KindOf(deleted) == api.KindBadState && strings.Contains(deleted.Error(), vm.Name) && err == nil:
			if _, err := f.Delete(t.Context(), "mine", true); api.KindOf(err) != api.KindBadState {
				t.Errorf("a dry run: %v", err)
			}
			pulltest.Must(t, f.DB.DeleteVM(t.Context(), vm.ID))
			_, err := f.Delete(t.Context(), "mine", false)
			pulltest.Must(t, err)
		case deleted == nil && api.KindOf(created) == api.KindNotFound && os.IsNotExist(err):
		default:
			t.Fatalf("created: %v; deleted: %v; files: %v", created, deleted, err)
		}
	}
	f.NothingLeft(t)
}

// A kernel that an image names stays.
func TestKernelDeleteRefusedForImages(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	path := put(t, filepath.Join(t.TempDir(), "vmlinux"), vmlinux(true, banner, embeddedConfig(t, allBuiltin)))
	_, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: path})
	pulltest.Must(t, err)
	pulltest.Must(t, f.DB.PublishImage(t.Context(), store.Image{ID: "aa", Name: "app", Kernel: "mine", CreatedAt: time.Now()}, nil))
	for _, dry := range []bool{true, false} {
		if _, err := f.Delete(t.Context(), "mine", dry); api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), "images use it: app") {
			t.Errorf("%v", err)
		}
	}
	pulltest.Must(t, f.DB.DeleteImage(t.Context(), "aa"))
	if res, err := f.Delete(t.Context(), "mine", true); err != nil || !res.Changed {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := f.Delete(t.Context(), "mine", false); err != nil {
		t.Error(err)
	}
	if _, err := f.Delete(t.Context(), "mine", false); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
}

func TestImportKernelFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	root := filepath.Join(t.TempDir(), "disk")
	pulltest.Must(t, os.Mkdir(root, 0o755))
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f := newFixture(t, root)
	dir := t.TempDir()
	// Packages and what is large are refused before anything is written.
	deb := put(t, filepath.Join(dir, "linux.deb"), debOf(t, strings.Replace(control, "Installed-Size: 300", "Installed-Size: 300000", 1), ".zst", kernelTree(t)))
	_, err := f.importAs(t, api.ImportKernel{Name: "mine", Path: deb})
	if e := api.AsError(err); e == nil || e.Kind != api.KindNoSpace || !strings.Contains(e.Message, "it needs 942.") || strings.Count(e.Message, "cannot") != 1 || strings.Contains(e.Hint, "kernel-") {
		t.Errorf("%+v", e)
	}
	f.NothingLeft(t)
}

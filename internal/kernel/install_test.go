package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/pull/pulltest"
)

// files makes the files of a kernel as they come in a bundle.
func files(t *testing.T, f *fixture, vmlinux, modules string, change func(*Manifest)) layout.KernelDir {
	t.Helper()
	dir, err := os.MkdirTemp(f.L.Staging(), "image-op-")
	pulltest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := layout.KernelDir{Dir: filepath.Join(dir, "kernel")}
	pulltest.Must(t, os.Mkdir(d.Dir, 0o700))
	for path, text := range map[string]string{d.VMLinux(): vmlinux, d.Modules(): modules, d.BootModules(): "boot"} {
		pulltest.Must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	sum := sha256.Sum256([]byte(vmlinux))
	m := Manifest{
		Version: manifestVersion, Release: "6.1.0-bundled", Arch: runtime.GOARCH, Digest: "sha256:" + hex.EncodeToString(sum[:]),
		SizeBytes: int64(len(vmlinux) + len(modules) + len("boot")),
	}
	if change != nil {
		change(&m)
	}
	pulltest.Must(t, pull.WriteManifest(d.Manifest(), m))
	return d
}

func TestInstallOfABundlesKernel(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	install := func(name, vmlinux, modules string) string {
		t.Helper()
		got, err := f.Install(t.Context(), files(t, f, vmlinux, modules, nil), name)
		pulltest.Must(t, err)
		dir, err := f.Files(t.Context(), got)
		pulltest.Must(t, err)
		if b, err := os.ReadFile(dir.VMLinux()); err != nil || string(b) != vmlinux {
			t.Errorf("%s is %q, %v", got, b, err)
		}
		return got
	}
	if got := install("mine", "one", "modules"); got != "mine" {
		t.Errorf("a free name: %s", got)
	}
	if got := install("other", "one", "modules"); got != "mine" {
		t.Errorf("the same content by another name: %s", got)
	}
	two := install("mine", "two", "modules")
	if !strings.HasPrefix(two, "mine-") || len(two) != len("mine-")+8 {
		t.Errorf("a name that is taken: %s", two)
	}
	// Other modules are another kernel: nobody vouches for them.
	if got := install("mine", "one", "evil modules"); got == "mine" {
		t.Error("other modules were taken for the same kernel")
	}
	if got := install(DefaultName, "three", "modules"); !strings.HasPrefix(got, DefaultName+"-") {
		t.Errorf("a name of the catalog: %s", got)
	}
	long := strings.Repeat("a", 63)
	install(long, "four", "modules")
	if got := install(long, "five", "modules"); len(got) != 63 {
		t.Errorf("a long name that is taken: %s", got)
	}
	k, err := f.Show(t.Context(), "mine")
	if err != nil || k.Source["kind"] != fromBundle || k.Version != "6.1.0-bundled" {
		t.Errorf("kernel: %+v, %v", k, err)
	}
	// The one built here boots the same: its modules are the ones that are meant.
	built, err := f.Resolve(t.Context(), DefaultName, "", nil)
	pulltest.Must(t, err)
	dir := f.L.Kernel(built.ID)
	vmlinux, err := os.ReadFile(dir.VMLinux())
	pulltest.Must(t, err)
	boot, err := os.ReadFile(dir.BootModules())
	pulltest.Must(t, err)
	same := files(t, f, string(vmlinux), "evil modules", func(m *Manifest) { m.SizeBytes += int64(len(boot) - len("boot")) })
	pulltest.Must(t, os.WriteFile(same.BootModules(), boot, 0o600))
	if got, err := f.Install(t.Context(), same, "x"); err != nil || got != DefaultName {
		t.Errorf("it boots what is here: %s, %v", got, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	for name, c := range map[string]struct {
		change func(*Manifest)
		kind   api.Kind
	}{
		"another kernel":  {func(m *Manifest) { m.Digest = "sha256:" + strings.Repeat("0", 64) }, api.KindInvalid},
		"another size":    {func(m *Manifest) { m.SizeBytes++ }, api.KindInvalid},
		"another machine": {func(m *Manifest) { m.Arch = "pdp11" }, api.KindUnsupported},
		"an odd release":  {func(m *Manifest) { m.Release = "../x" }, api.KindInvalid},
		"a newer banger":  {func(m *Manifest) { m.Version = 99 }, api.KindInvalid},
	} {
		if got, err := f.Install(t.Context(), files(t, f, "one", "modules", c.change), "mine"); api.KindOf(err) != c.kind {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if list, err := f.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("installed %v, %v", list, err)
	}
}

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/pull/pulltest"
	"github.com/bangervm/banger/internal/store"
)

// builder is the fake beside Build: it writes small files, and waits or fails
// when told to.
type builder struct {
	pulltest.Builder
	modules atomic.Pointer[string] // those of the boot; nil: as content
}

func (b *builder) build(ctx context.Context, dir layout.KernelDir, _ Recipe, opt BuildOptions) (Manifest, error) {
	text, err := b.Begin(ctx, dir.VMLinux(), "vmlinux", opt.Report)
	if err != nil {
		return Manifest{}, err
	}
	for _, p := range []string{dir.VMLinux(), dir.Modules(), dir.BootModules()} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			return Manifest{}, err
		}
	}
	if c := b.modules.Load(); c != nil {
		if err := os.WriteFile(dir.BootModules(), []byte(*c), 0o600); err != nil {
			return Manifest{}, err
		}
	}
	sum := sha256.Sum256([]byte(text))
	m := Manifest{
		Version: manifestVersion, Digest: "sha256:" + hex.EncodeToString(sum[:]), SizeBytes: int64(3 * len(text)), Release: "6.1.0-56-cloud-amd64", Arch: "amd64",
		Source: map[string]string{"suite": "bookworm"},
	}
	return m, pull.WriteManifest(dir.Manifest(), m)
}

// fixture is a manager with a real store and real operations.
type fixture struct {
	*Manager
	*pulltest.Host
	b *builder
}

func newFixture(t *testing.T, root string) *fixture {
	t.Helper()
	h, b := pulltest.NewHost(t, root), &builder{}
	return &fixture{New(h.L, h.DB, h.Ops, h.Log, Options{Build: b.build, Mirror: debian.DefaultMirror}), h, b}
}

var suite = pulltest.Suite[store.Kernel]{
	Noun: "kernel", Default: DefaultName, ID: func(k store.Kernel) string { return k.ID },
	Files: func(l layout.Layout, id string) pulltest.Files {
		d := l.Kernel(id)
		return pulltest.Files{Dir: d.Dir, Manifest: d.Manifest(), Root: d.VMLinux()}
	},
	New: func(t *testing.T, root string) (pulltest.Manager[store.Kernel], *pulltest.Host, *pulltest.Builder) {
		f := newFixture(t, root)
		return f.Manager, f.Host, &f.b.Builder
	},
}

func TestAutoPullKernelThereAlready(t *testing.T) {
	t.Parallel()
	suite.ThereAlready(t)
}

func TestAutoPullKernelMissing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	var stages []string
	got, err := f.Resolve(t.Context(), DefaultName, "missing", func(stage string, p api.Progress) {
		stages = append(stages, stage)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(stages, "downloading packages") && !slices.Contains(stages, "publishing") {
		t.Errorf("stages shown: %v", stages)
	}
	if got.Version != "6.1.0-56-cloud-amd64" || got.Arch != "amd64" || len(got.ID) != 16 {
		t.Errorf("got %+v", got)
	}
	if b, err := os.ReadFile(f.L.Kernel(got.ID).VMLinux()); err != nil || string(b) != "vmlinux" {
		t.Errorf("vmlinux: %q, %v", b, err)
	}
	f.NothingLeft(t)
	catalog, err := f.Catalog(t.Context(), false)
	if err != nil || len(catalog) == 0 || !catalog[0].Local {
		t.Errorf("catalog: %+v, %v", catalog, err)
	}
	if _, err := f.Resolve(t.Context(), DefaultName, "never", nil); err != nil {
		t.Error(err)
	}
}

func TestAutoPullKernelNeverIsNotFound(t *testing.T) {
	t.Parallel()
	suite.NeverIsNotFound(t)
}

func TestAutoPullKernelNotInCatalog(t *testing.T) {
	t.Parallel()
	suite.NotInCatalog(t)
}

func TestAutoPullKernelFailureComesThrough(t *testing.T) {
	t.Parallel()
	suite.FailureComesThrough(t)
}

func TestAutoPullKernelReadErrorIsItself(t *testing.T) {
	t.Parallel()
	suite.ReadErrorIsItself(t, "does not hold what its manifest says")
}

// A kernel made anew with other modules for the boot takes the name of the old
// one, though its vmlinux is the same; what uses the old one keeps it.
func TestForcedPullTakesOtherBootModules(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	old, err := f.Resolve(t.Context(), DefaultName, "", nil)
	pulltest.Must(t, err)
	modules := "modules" // as long as vmlinux, so that the sizes are those of the manifest
	f.b.modules.Store(&modules)
	op, err := f.Pull(t.Context(), api.Pull{Name: DefaultName, Force: true})
	pulltest.Must(t, err)
	if op, err = f.Ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationSucceeded || !strings.Contains(string(op.Result), `"changed":true`) {
		t.Fatalf("pull: %v, %+v %s", err, op.Error, op.Result)
	}
	now, err := f.Resolve(t.Context(), DefaultName, "never", nil)
	pulltest.Must(t, err)
	if got, err := os.ReadFile(f.L.Kernel(now.ID).BootModules()); err != nil || string(got) != modules || now.ID == old.ID || now.Digest != old.Digest {
		t.Errorf("%q %v, id %s after %s", got, err, now.ID, old.ID)
	}
	if got, err := os.ReadFile(f.L.Kernel(old.ID).BootModules()); err != nil || string(got) != "vmlinux" {
		t.Errorf("the old one: %q %v", got, err)
	}
}

func TestAutoPullKernelStoreErrorIsItself(t *testing.T) {
	t.Parallel()
	suite.StoreErrorIsItself(t)
}

func TestAutoPullKernelJoins(t *testing.T) {
	t.Parallel()
	suite.Joins(t)
}

func TestAutoPullKernelSurvivesAnothersCancel(t *testing.T) {
	t.Parallel()
	suite.SurvivesAnothersCancel(t)
}

func TestPullKernelForceMovesTheName(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := newFixture(t, root)
	pull := func() api.Kernel {
		t.Helper()
		op, err := f.Pull(t.Context(), api.Pull{Name: DefaultName, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if op, err = f.Ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationSucceeded {
			t.Fatalf("pull: %v, %+v", err, op.Error)
		}
		var kernel api.Kernel
		pulltest.Must(t, json.Unmarshal(op.Result, &kernel))
		return kernel
	}
	first := pull()
	if again := pull(); !first.Changed || again.Changed || again.Digest != first.Digest {
		t.Errorf("the same again: changed %v", again.Changed)
	}
	newer := "newer vmlinux, in three files"
	f.b.Content.Store(&newer)
	old, err := f.Resolve(t.Context(), DefaultName, "never", nil)
	pulltest.Must(t, err)
	pulltest.Must(t, f.DB.InsertVM(t.Context(), store.VM{ID: "0011223344556677", Name: "user", KernelID: old.ID, CreatedAt: time.Now()}))
	second := pull()
	if !second.Changed || second.Digest == first.Digest {
		t.Errorf("newer content: %+v", second)
	}
	kept, err := f.Show(t.Context(), old.ID)
	if err != nil || kept.Name != "" || !slices.Equal(kept.UsedBy, []string{"user"}) {
		t.Errorf("the old one: %+v, %v", kept, err)
	}
	pulltest.Must(t, f.Recover(t.Context()))
	if _, err := os.Stat(f.L.Kernel(old.ID).VMLinux()); err != nil {
		t.Errorf("a used kernel was removed: %v", err)
	}
	pulltest.Must(t, f.DB.DeleteVM(t.Context(), "0011223344556677"))
	pulltest.Must(t, f.Recover(t.Context()))
	if _, err := os.Stat(f.L.Kernel(old.ID).Dir); !os.IsNotExist(err) {
		t.Errorf("a nameless, unused kernel stays: %v", err)
	}
}

func TestPullKernelCutOffByACrash(t *testing.T) {
	t.Parallel()
	suite.CutOffByACrash(t)
}

func TestKnownKernels(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	if err := f.Known(t.Context(), DefaultName); err != nil {
		t.Error(err)
	}
	if err := f.Known(t.Context(), "no-such-kernel"); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	k, err := f.Resolve(t.Context(), "", "", nil)
	pulltest.Must(t, err)
	if err := f.Known(t.Context(), k.ID); err != nil {
		t.Error(err)
	}
}

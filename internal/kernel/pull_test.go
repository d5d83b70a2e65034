package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// builder is the fake beside Build: it writes small files, and waits or fails
// when told to.
type builder struct {
	builds  atomic.Int32
	content atomic.Pointer[string]
	modules atomic.Pointer[string] // those of the boot; nil: as content
	started chan struct{}          // if set, receives one value a build
	release chan struct{}          // if set, a build waits for its close
	err     atomic.Pointer[api.Error]
}

func (b *builder) build(ctx context.Context, dir layout.KernelDir, _ Recipe, opt BuildOptions) (Manifest, error) {
	b.builds.Add(1)
	opt.Report(debian.Progress{Stage: "downloading packages", Done: 1, Total: 2, Unit: "bytes"})
	if err := os.WriteFile(dir.VMLinux()+".partial", []byte("half"), 0o600); err != nil {
		return Manifest{}, err
	}
	if b.started != nil {
		b.started <- struct{}{}
	}
	if b.release != nil {
		select {
		case <-b.release:
		case <-ctx.Done():
			return Manifest{}, context.Cause(ctx)
		}
	}
	if err := b.err.Load(); err != nil {
		return Manifest{}, err
	}
	text := "vmlinux"
	if c := b.content.Load(); c != nil {
		text = *c
	}
	for _, p := range []string{dir.VMLinux(), dir.Modules(), dir.BootModules()} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			return Manifest{}, err
		}
	}
	if err := os.Remove(dir.VMLinux() + ".partial"); err != nil {
		return Manifest{}, err
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
	b   *builder
	db  *store.DB
	ops *operation.Registry
	l   layout.Layout
}

func newFixture(t *testing.T, root string) *fixture {
	t.Helper()
	l := layout.Layout{
		Config: filepath.Join(root, "config"), State: filepath.Join(root, "state"), Cache: filepath.Join(root, "cache"),
		Runtime: filepath.Join(root, "run"), Root: root,
	}
	if err := l.Ensure(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	db, err := store.Open(t.Context(), l.Database(), log)
	if err != nil {
		t.Fatal(err)
	}
	ops := operation.New(db, nil, time.Now, log)
	f := &fixture{b: &builder{}, db: db, ops: ops, l: l}
	f.Manager = New(l, db, ops, log, Options{Build: f.b.build, Mirror: debian.DefaultMirror})
	t.Cleanup(func() { f.close(t) })
	return f
}

func (f *fixture) close(t *testing.T) {
	if f.db == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := f.ops.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := f.db.Close(); err != nil {
		t.Error(err)
	}
	f.db = nil
}

// nothingLeft checks that the staging folder is empty.
func (f *fixture) nothingLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(f.l.Staging())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in the staging folder: %s", e.Name())
	}
}

func TestAutoPullKernelThereAlready(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	first, err := f.Resolve(t.Context(), DefaultName, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{DefaultName, "", first.ID} {
		for _, policy := range []string{"", "missing", "never"} {
			got, err := f.Resolve(t.Context(), ref, policy, nil)
			if err != nil {
				t.Fatalf("%q %q: %v", ref, policy, err)
			}
			if got.ID != first.ID {
				t.Errorf("%q %q: got %s, want %s", ref, policy, got.ID, first.ID)
			}
		}
	}
	if n := f.b.builds.Load(); n != 1 {
		t.Errorf("%d builds, want 1", n)
	}
	op, err := f.Pull(t.Context(), api.Pull{Name: DefaultName})
	if err != nil {
		t.Fatal(err)
	}
	var kernel api.Kernel
	if err := json.Unmarshal(op.Result, &kernel); err != nil {
		t.Fatal(err)
	}
	if op.Status != api.OperationSucceeded || kernel.Changed || kernel.Name != DefaultName {
		t.Errorf("pull of what is here: %s, %+v", op.Status, kernel)
	}
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
	if b, err := os.ReadFile(f.l.Kernel(got.ID).VMLinux()); err != nil || string(b) != "vmlinux" {
		t.Errorf("vmlinux: %q, %v", b, err)
	}
	f.nothingLeft(t)
	catalog, err := f.Catalog(t.Context())
	if err != nil || len(catalog) == 0 || !catalog[0].Local {
		t.Errorf("catalog: %+v, %v", catalog, err)
	}
	if _, err := f.Resolve(t.Context(), DefaultName, "never", nil); err != nil {
		t.Error(err)
	}
}

func TestAutoPullKernelNeverIsNotFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	_, err := f.Resolve(t.Context(), DefaultName, "never", nil)
	if api.KindOf(err) != api.KindNotFound || f.b.builds.Load() != 0 {
		t.Errorf("got %v after %d builds", err, f.b.builds.Load())
	}
	if _, err := f.Resolve(t.Context(), DefaultName, "often", nil); api.KindOf(err) != api.KindInvalid {
		t.Errorf("unknown policy: %v", err)
	}
}

func TestAutoPullKernelNotInCatalog(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	_, err := f.Resolve(t.Context(), "debian-bokworm-cloud", "", nil)
	e := api.AsError(err)
	if api.KindOf(err) != api.KindNotFound || !slices.Contains(e.Candidates, DefaultName) || e.Hint == "" {
		t.Errorf("got %+v", e)
	}
	if _, err := f.Pull(t.Context(), api.Pull{Name: "nothing-like-it"}); api.KindOf(err) != api.KindNotFound || len(api.AsError(err).Candidates) != 0 {
		t.Errorf("got %+v", api.AsError(err))
	}
	if n := f.b.builds.Load(); n != 0 {
		t.Errorf("%d builds", n)
	}
}

func TestAutoPullKernelFailureComesThrough(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	f.b.err.Store(api.Errorf(api.KindUnavailable, "cannot download libc6.deb from http://mirror/libc6.deb: 404 Not Found").WithHint("banger config show"))
	_, err := f.Resolve(t.Context(), DefaultName, "", nil)
	e := api.AsError(err)
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(e.Message, "libc6.deb from http://mirror/") || e.Hint == "" {
		t.Errorf("got %+v", e)
	}
	f.nothingLeft(t)
	f.b.err.Store(nil)
	if _, err := f.Resolve(t.Context(), DefaultName, "", nil); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestAutoPullKernelReadErrorIsItself(t *testing.T) {
	t.Parallel()
	damage := map[string]struct {
		do   func(t *testing.T, d layout.KernelDir)
		kind api.Kind
		says string
	}{
		"corrupt manifest": {func(t *testing.T, d layout.KernelDir) {
			must(t, os.WriteFile(d.Manifest(), []byte("{"), 0o600))
		}, api.KindInternal, "manifest.json: it is corrupt"},
		"newer manifest": {func(t *testing.T, d layout.KernelDir) {
			must(t, os.WriteFile(d.Manifest(), []byte(`{"manifest_version":99}`), 0o600))
		}, api.KindInternal, "newer banger"},
		"truncated root": {func(t *testing.T, d layout.KernelDir) {
			must(t, os.Truncate(d.VMLinux(), 3))
		}, api.KindInternal, "does not hold what its manifest says"},
		"files gone": {func(t *testing.T, d layout.KernelDir) {
			must(t, os.RemoveAll(d.Dir))
		}, api.KindBadState, "files are gone"},
		"unreadable": {func(t *testing.T, d layout.KernelDir) {
			// Also root cannot read a manifest that is a folder.
			must(t, os.Remove(d.Manifest()))
			must(t, os.Mkdir(d.Manifest(), 0o000))
		}, "", "manifest.json"},
	}
	for name, c := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, t.TempDir())
			kernel, err := f.Resolve(t.Context(), DefaultName, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			c.do(t, f.l.Kernel(kernel.ID))
			for _, policy := range []string{"", "never"} {
				_, err = f.Resolve(t.Context(), DefaultName, policy, nil)
				if err == nil || api.KindOf(err) == api.KindNotFound || (c.kind != "" && api.KindOf(err) != c.kind) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v (%s)", err, api.KindOf(err))
				}
			}
			if n := f.b.builds.Load(); n != 1 {
				t.Errorf("%d builds", n)
			}
			// The way out that the hint names.
			op, err := f.Pull(t.Context(), api.Pull{Name: DefaultName, Force: true})
			if err != nil {
				t.Fatal(err)
			}
			if op, err = f.ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationSucceeded {
				t.Fatalf("pull: %v, %+v", err, op.Error)
			}
			if _, err := f.Resolve(t.Context(), DefaultName, "never", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// A kernel made anew with other modules for the boot takes the name of the old
// one, though its vmlinux is the same; what uses the old one keeps it.
func TestForcedPullTakesOtherBootModules(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	old, err := f.Resolve(t.Context(), DefaultName, "", nil)
	must(t, err)
	modules := "modules" // as long as vmlinux, so that the sizes are those of the manifest
	f.b.modules.Store(&modules)
	op, err := f.Pull(t.Context(), api.Pull{Name: DefaultName, Force: true})
	must(t, err)
	if op, err = f.ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationSucceeded || !strings.Contains(string(op.Result), `"changed":true`) {
		t.Fatalf("pull: %v, %+v %s", err, op.Error, op.Result)
	}
	now, err := f.Resolve(t.Context(), DefaultName, "never", nil)
	must(t, err)
	if got, err := os.ReadFile(f.l.Kernel(now.ID).BootModules()); err != nil || string(got) != modules || now.ID == old.ID || now.Digest != old.Digest {
		t.Errorf("%q %v, id %s after %s", got, err, now.ID, old.ID)
	}
	if got, err := os.ReadFile(f.l.Kernel(old.ID).BootModules()); err != nil || string(got) != "vmlinux" {
		t.Errorf("the old one: %q %v", got, err)
	}
}

func TestAutoPullKernelStoreErrorIsItself(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	must(t, f.db.Close())
	_, err := f.Resolve(t.Context(), DefaultName, "", nil)
	if err == nil || api.KindOf(err) == api.KindNotFound || f.b.builds.Load() != 0 {
		t.Errorf("got %v (%s) after %d builds", err, api.KindOf(err), f.b.builds.Load())
	}
	f.db = nil
}

func TestAutoPullKernelJoins(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	f.b.started, f.b.release = make(chan struct{}, 10), make(chan struct{})

	// The first begins the pull and gives up while it runs.
	first, giveUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := f.Resolve(first, DefaultName, "", nil)
		gone <- err
	}()
	<-f.b.started

	const n = 8
	var ready, wg sync.WaitGroup
	errs := make([]error, n)
	ids := make([]string, n)
	ready.Add(n)
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var once sync.Once
			kernel, err := f.Resolve(t.Context(), DefaultName, "", func(string, api.Progress) { once.Do(ready.Done) })
			errs[i], ids[i] = err, kernel.ID
		}()
	}
	ready.Wait() // all watch the one pull
	giveUp()
	if err := <-gone; api.KindOf(err) != api.KindCancelled {
		t.Errorf("the first: %v", err)
	}
	close(f.b.release)
	wg.Wait()
	for i := range n {
		if errs[i] != nil || ids[i] == "" || ids[i] != ids[0] {
			t.Errorf("joiner %d: %q, %v", i, ids[i], errs[i])
		}
	}
	if n := f.b.builds.Load(); n != 1 {
		t.Errorf("%d builds, want 1", n)
	}
}

func TestAutoPullKernelSurvivesAnothersCancel(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	f.b.started, f.b.release = make(chan struct{}, 10), make(chan struct{})
	op, err := f.Pull(t.Context(), api.Pull{Name: DefaultName})
	if err != nil {
		t.Fatal(err)
	}
	<-f.b.started
	watching := make(chan struct{})
	done := make(chan error)
	go func() {
		var once sync.Once
		_, err := f.Resolve(t.Context(), DefaultName, "", func(string, api.Progress) { once.Do(func() { close(watching) }) })
		done <- err
	}()
	<-watching
	must(t, f.ops.Cancel(op.ID))
	<-f.b.started // it begins anew for the one who waits
	close(f.b.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if op, err = f.ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationCancelled {
		t.Errorf("the cancelled: %s, %v", op.Status, err)
	}
	f.nothingLeft(t)
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
		if op, err = f.ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationSucceeded {
			t.Fatalf("pull: %v, %+v", err, op.Error)
		}
		var kernel api.Kernel
		must(t, json.Unmarshal(op.Result, &kernel))
		return kernel
	}
	first := pull()
	if again := pull(); !first.Changed || again.Changed || again.Digest != first.Digest {
		t.Errorf("the same again: changed %v", again.Changed)
	}
	newer := "newer vmlinux, in three files"
	f.b.content.Store(&newer)
	old, err := f.Resolve(t.Context(), DefaultName, "never", nil)
	must(t, err)
	must(t, f.db.InsertVM(t.Context(), store.VM{ID: "0011223344556677", Name: "user", KernelID: old.ID, CreatedAt: time.Now()}))
	second := pull()
	if !second.Changed || second.Digest == first.Digest {
		t.Errorf("newer content: %+v", second)
	}
	kept, err := f.Show(t.Context(), old.ID)
	if err != nil || kept.Name != "" || !slices.Equal(kept.UsedBy, []string{"user"}) {
		t.Errorf("the old one: %+v, %v", kept, err)
	}
	must(t, f.Recover(t.Context()))
	if _, err := os.Stat(f.l.Kernel(old.ID).VMLinux()); err != nil {
		t.Errorf("a used kernel was removed: %v", err)
	}
	must(t, f.db.DeleteVM(t.Context(), "0011223344556677"))
	must(t, f.Recover(t.Context()))
	if _, err := os.Stat(f.l.Kernel(old.ID).Dir); !os.IsNotExist(err) {
		t.Errorf("a nameless, unused kernel stays: %v", err)
	}
}

func TestPullKernelCutOffByACrash(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := newFixture(t, root)
	f.b.started, f.b.release = make(chan struct{}, 1), make(chan struct{})
	if _, err := f.Pull(t.Context(), api.Pull{Name: DefaultName}); err != nil {
		t.Fatal(err)
	}
	<-f.b.started
	f.close(t) // leaves the operation journalled as running, its staging behind

	f = newFixture(t, root)
	must(t, os.MkdirAll(filepath.Join(f.l.Staging(), "kernel-forgotten"), 0o700))
	must(t, f.Recover(t.Context()))
	must(t, f.ops.Recover(t.Context()))
	ops, err := f.ops.List(t.Context(), operation.Filter{Kind: "kernel.pull"})
	must(t, err)
	for _, op := range ops {
		if op, err = f.ops.Wait(t.Context(), op.ID); err != nil || op.Status == api.OperationRunning {
			t.Errorf("operation: %+v, %v", op, err)
		}
	}
	f.nothingLeft(t)
	if _, err := f.Resolve(t.Context(), DefaultName, "", nil); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

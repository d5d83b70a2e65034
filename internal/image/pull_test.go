package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
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
}

func (b *builder) build(ctx context.Context, dir layout.ImageDir, _ Recipe, opt BuildOptions) (Manifest, error) {
	text, err := b.Begin(ctx, dir.RootFS(), "root file system", opt.Report)
	if err != nil {
		return Manifest{}, err
	}
	if err := os.WriteFile(dir.RootFS(), []byte(text), 0o600); err != nil {
		return Manifest{}, err
	}
	sum := sha256.Sum256([]byte(text))
	m := Manifest{
		Version: manifestVersion, Digest: "sha256:" + hex.EncodeToString(sum[:]), SizeBytes: int64(len(text)),
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

// plain pulls as every noun does.
type plain struct{ *Manager }

func (p plain) Pull(ctx context.Context, req api.Pull) (api.Operation, error) {
	return p.Manager.Pull(ctx, api.PullImage{Name: req.Name, Force: req.Force})
}

var suite = pulltest.Suite[store.Image]{
	Noun: "image", Default: DefaultName, ID: func(i store.Image) string { return i.ID },
	Files: func(l layout.Layout, id string) pulltest.Files {
		d := l.Image(id)
		return pulltest.Files{Dir: d.Dir, Manifest: d.Manifest(), Root: d.RootFS()}
	},
	New: func(t *testing.T, root string) (pulltest.Manager[store.Image], *pulltest.Host, *pulltest.Builder) {
		f := newFixture(t, root)
		return plain{f.Manager}, f.Host, &f.b.Builder
	},
}

func TestAutoPullImageThereAlready(t *testing.T) {
	t.Parallel()
	suite.ThereAlready(t)
}

func TestAutoPullImageMissing(t *testing.T) {
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
	if got.Kernel != DefaultKernel || got.Kind != KindDebian || got.ID != idOf(got.Digest) {
		t.Errorf("got %+v", got)
	}
	if b, err := os.ReadFile(f.L.Image(got.ID).RootFS()); err != nil || string(b) != "root file system" {
		t.Errorf("root file system: %q, %v", b, err)
	}
	f.NothingLeft(t)
	catalog, err := f.Catalog(t.Context(), false)
	if err != nil || len(catalog) == 0 || !catalog[0].Local {
		t.Errorf("catalog: %+v, %v", catalog, err)
	}
	if _, err := f.Resolve(t.Context(), "debian-bookworm", "never", nil); err != nil {
		t.Error(err)
	}
}

func TestAutoPullImageNeverIsNotFound(t *testing.T) {
	t.Parallel()
	suite.NeverIsNotFound(t)
}

func TestAutoPullImageNotInCatalog(t *testing.T) {
	t.Parallel()
	suite.NotInCatalog(t)
}

func TestAutoPullImageFailureComesThrough(t *testing.T) {
	t.Parallel()
	suite.FailureComesThrough(t)
}

func TestAutoPullImageReadErrorIsItself(t *testing.T) {
	t.Parallel()
	suite.ReadErrorIsItself(t, "not what its manifest says")
}

func TestAutoPullImageStoreErrorIsItself(t *testing.T) {
	t.Parallel()
	suite.StoreErrorIsItself(t)
}

func TestAutoPullImageJoins(t *testing.T) {
	t.Parallel()
	suite.Joins(t)
}

func TestAutoPullImageSurvivesAnothersCancel(t *testing.T) {
	t.Parallel()
	suite.SurvivesAnothersCancel(t)
}

func TestPullImageForceMovesTheName(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := newFixture(t, root)
	pull := func() api.Image {
		t.Helper()
		op, err := f.Pull(t.Context(), api.PullImage{Name: DefaultName, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if op, err = f.Ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationSucceeded {
			t.Fatalf("pull: %v, %+v", err, op.Error)
		}
		var image api.Image
		pulltest.Must(t, json.Unmarshal(op.Result, &image))
		return image
	}
	first := pull()
	if again := pull(); !first.Changed || again.Changed || again.Digest != first.Digest {
		t.Errorf("the same again: changed %v", again.Changed)
	}
	newer := "newer root file system"
	f.b.Content.Store(&newer)
	old, err := f.Resolve(t.Context(), DefaultName, "never", nil)
	pulltest.Must(t, err)
	pulltest.Must(t, f.DB.InsertVM(t.Context(), store.VM{ID: "0011223344556677", Name: "user", ImageID: old.ID, CreatedAt: time.Now()}))
	second := pull()
	if !second.Changed || second.Digest == first.Digest {
		t.Errorf("newer content: %+v", second)
	}
	kept, err := f.Show(t.Context(), old.ID)
	if err != nil || kept.Name != "" || !slices.Equal(kept.UsedBy, []string{"user"}) {
		t.Errorf("the old one: %+v, %v", kept, err)
	}
	pulltest.Must(t, f.Recover(t.Context()))
	if _, err := os.Stat(f.L.Image(old.ID).RootFS()); err != nil {
		t.Errorf("a used image was removed: %v", err)
	}
	// Nameless and unused, it stays until it is pruned or deleted.
	pulltest.Must(t, f.DB.DeleteVM(t.Context(), "0011223344556677"))
	pulltest.Must(t, f.Recover(t.Context()))
	if _, err := f.Delete(t.Context(), old.ID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(f.L.Image(old.ID).Dir); !os.IsNotExist(err) {
		t.Errorf("a deleted image stays: %v", err)
	}
	f.NothingLeft(t)
}

func TestPullImageCutOffByACrash(t *testing.T) {
	t.Parallel()
	suite.CutOffByACrash(t)
}

func TestKernelAhead(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	for ref, want := range map[string]string{"": DefaultKernel, DefaultName: DefaultKernel, "no-such-image": ""} {
		if got := f.KernelAhead(t.Context(), ref); got != want {
			t.Errorf("%q: %q", ref, got)
		}
	}
	if _, err := f.Resolve(t.Context(), "", "", nil); err != nil {
		t.Fatal(err)
	}
	if got := f.KernelAhead(t.Context(), ""); got != "" {
		t.Errorf("the image is here, and its kernel may be another: %q", got)
	}
}

// Package pulltest holds what the tests of every noun that is pulled share: a
// host with a real store and real operations, a fake build, and the promises
// that a pull keeps whatever it pulls. Start at Suite.
package pulltest

import (
	"context"
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

// Builder is what a fake build is told, and tells.
type Builder struct {
	Builds  atomic.Int32
	Content atomic.Pointer[string]
	Started chan struct{} // if set, receives one value a build
	Release chan struct{} // if set, a build waits for its close
	Err     atomic.Pointer[api.Error]
}

// Begin is the beginning of a fake build: it leaves something half-made at path
// while it waits, or fails, as told. It gives the content to write.
func (b *Builder) Begin(ctx context.Context, path, content string, report func(debian.Progress)) (string, error) {
	b.Builds.Add(1)
	report(debian.Progress{Stage: "downloading packages", Done: 1, Total: 2, Unit: "bytes"})
	if err := os.WriteFile(path+".partial", []byte("half"), 0o600); err != nil {
		return "", err
	}
	if b.Started != nil {
		b.Started <- struct{}{}
	}
	if b.Release != nil {
		select {
		case <-b.Release:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	if err := b.Err.Load(); err != nil {
		return "", err
	}
	if c := b.Content.Load(); c != nil {
		content = *c
	}
	return content, os.Remove(path + ".partial")
}

// Host is what a manager under test stands on.
type Host struct {
	DB  *store.DB
	Ops *operation.Registry
	L   layout.Layout
	Log *slog.Logger
}

// NewHost makes a host in root, which may be one that was closed before.
func NewHost(t *testing.T, root string) *Host {
	t.Helper()
	h := &Host{
		L: layout.Layout{
			Config: filepath.Join(root, "config"), State: filepath.Join(root, "state"), Cache: filepath.Join(root, "cache"),
			Runtime: filepath.Join(root, "run"), Root: root,
		},
		Log: slog.New(slog.DiscardHandler),
	}
	Must(t, h.L.Ensure())
	db, err := store.Open(t.Context(), h.L.Database(), h.Log)
	Must(t, err)
	h.DB, h.Ops = db, operation.New(db, nil, time.Now, h.Log)
	t.Cleanup(func() { h.Close(t) })
	return h
}

// Close ends the host as a daemon's end does; a second time it does nothing.
func (h *Host) Close(t *testing.T) {
	if h.DB == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := h.Ops.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := h.DB.Close(); err != nil {
		t.Error(err)
	}
	h.DB = nil
}

// NothingLeft checks that the staging folder is empty.
func (h *Host) NothingLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(h.L.Staging())
	Must(t, err)
	for _, e := range entries {
		t.Errorf("left in the staging folder: %s", e.Name())
	}
}

// Must ends the test on an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Manager is what a noun's manager and its records R have in common.
type Manager[R any] interface {
	Resolve(ctx context.Context, ref, policy string, report pull.Report) (R, error)
	Pull(ctx context.Context, req api.Pull) (api.Operation, error)
	Recover(ctx context.Context) error
}

// Files are those of one thing; Root is what it cannot be without.
type Files struct{ Dir, Manifest, Root string }

// Suite holds the promises for one noun; each of its methods is a test.
type Suite[R any] struct {
	Noun    string // image, kernel
	Default string // the name in its catalog
	ID      func(R) string
	Files   func(l layout.Layout, id string) Files
	// New makes a manager, with a fake build, on a new host in root.
	New func(t *testing.T, root string) (Manager[R], *Host, *Builder)
}

// ThereAlready: what is here is found by name, id and default, and not pulled.
func (s Suite[R]) ThereAlready(t *testing.T) {
	m, h, b := s.New(t, t.TempDir())
	first, err := m.Resolve(t.Context(), s.Default, "", nil)
	Must(t, err)
	for _, ref := range []string{s.Default, "", s.ID(first)} {
		for _, policy := range []string{"", "missing", "never"} {
			got, err := m.Resolve(t.Context(), ref, policy, nil)
			if err != nil {
				t.Fatalf("%q %q: %v", ref, policy, err)
			}
			if s.ID(got) != s.ID(first) {
				t.Errorf("%q %q: got %s, want %s", ref, policy, s.ID(got), s.ID(first))
			}
		}
	}
	if n := b.Builds.Load(); n != 1 {
		t.Errorf("%d builds, want 1", n)
	}
	op, err := m.Pull(t.Context(), api.Pull{Name: s.Default})
	Must(t, err)
	op, err = h.Ops.Wait(t.Context(), op.ID)
	Must(t, err)
	var result struct {
		Name    string
		Changed bool
	}
	Must(t, json.Unmarshal(op.Result, &result))
	if op.Status != api.OperationSucceeded || result.Changed || result.Name != s.Default {
		t.Errorf("pull of what is here: %s, %+v", op.Status, result)
	}
}

// ReadErrorIsItself: damaged files are reported as what they are, never pulled
// anew unasked, and a forced pull mends them. notWhole is what the error says of
// a file that is too short.
func (s Suite[R]) ReadErrorIsItself(t *testing.T, notWhole string) {
	for name, c := range map[string]struct {
		do   func(t *testing.T, f Files)
		kind api.Kind // empty: any but not-found
		says string
	}{
		"corrupt manifest": {func(t *testing.T, f Files) {
			Must(t, os.WriteFile(f.Manifest, []byte("{"), 0o600))
		}, api.KindInternal, "manifest.json: it is corrupt"},
		"newer manifest": {func(t *testing.T, f Files) {
			Must(t, os.WriteFile(f.Manifest, []byte(`{"manifest_version":99}`), 0o600))
		}, api.KindInternal, "newer banger"},
		"truncated root": {func(t *testing.T, f Files) {
			Must(t, os.Truncate(f.Root, 3))
		}, api.KindInternal, notWhole},
		"files gone": {func(t *testing.T, f Files) {
			Must(t, os.RemoveAll(f.Dir))
		}, api.KindBadState, "files are gone"},
		"unreadable": {func(t *testing.T, f Files) {
			// Also root cannot read a manifest that is a folder.
			Must(t, os.Remove(f.Manifest))
			Must(t, os.Mkdir(f.Manifest, 0o000))
		}, "", "manifest.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, h, b := s.New(t, t.TempDir())
			rec, err := m.Resolve(t.Context(), s.Default, "", nil)
			Must(t, err)
			c.do(t, s.Files(h.L, s.ID(rec)))
			for _, policy := range []string{"", "never"} {
				_, err = m.Resolve(t.Context(), s.Default, policy, nil)
				if err == nil || api.KindOf(err) == api.KindNotFound || (c.kind != "" && api.KindOf(err) != c.kind) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v (%s)", err, api.KindOf(err))
				}
			}
			if n := b.Builds.Load(); n != 1 {
				t.Errorf("%d builds", n)
			}
			// The way out that the hint names.
			op, err := m.Pull(t.Context(), api.Pull{Name: s.Default, Force: true})
			Must(t, err)
			if op, err = h.Ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationSucceeded {
				t.Fatalf("pull: %v, %+v", err, op.Error)
			}
			if _, err := m.Resolve(t.Context(), s.Default, "never", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// NeverIsNotFound: the policy never pulls nothing, and an unknown one is refused.
func (s Suite[R]) NeverIsNotFound(t *testing.T) {
	m, _, b := s.New(t, t.TempDir())
	_, err := m.Resolve(t.Context(), s.Default, "never", nil)
	if api.KindOf(err) != api.KindNotFound || b.Builds.Load() != 0 {
		t.Errorf("got %v after %d builds", err, b.Builds.Load())
	}
	if _, err := m.Resolve(t.Context(), s.Default, "often", nil); api.KindOf(err) != api.KindInvalid {
		t.Errorf("unknown policy: %v", err)
	}
}

// NotInCatalog: what is unknown is not found, and near names are named.
func (s Suite[R]) NotInCatalog(t *testing.T) {
	m, _, b := s.New(t, t.TempDir())
	_, err := m.Resolve(t.Context(), strings.Replace(s.Default, "bookworm", "bokworm", 1), "", nil)
	e := api.AsError(err)
	if api.KindOf(err) != api.KindNotFound || !slices.Contains(e.Candidates, s.Default) || e.Hint == "" {
		t.Errorf("got %+v", e)
	}
	if _, err := m.Pull(t.Context(), api.Pull{Name: "nothing-like-it"}); api.KindOf(err) != api.KindNotFound || len(api.AsError(err).Candidates) != 0 {
		t.Errorf("got %+v", api.AsError(err))
	}
	if n := b.Builds.Load(); n != 0 {
		t.Errorf("%d builds", n)
	}
}

// FailureComesThrough: a build's own error is what the caller gets.
func (s Suite[R]) FailureComesThrough(t *testing.T) {
	m, h, b := s.New(t, t.TempDir())
	b.Err.Store(api.Errorf(api.KindUnavailable, "cannot download libc6.deb from http://mirror/libc6.deb: 404 Not Found").WithHint("banger config show"))
	_, err := m.Resolve(t.Context(), s.Default, "", nil)
	e := api.AsError(err)
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(e.Message, "libc6.deb from http://mirror/") || e.Hint == "" {
		t.Errorf("got %+v", e)
	}
	h.NothingLeft(t)
	b.Err.Store(nil)
	if _, err := m.Resolve(t.Context(), s.Default, "", nil); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// StoreErrorIsItself: a store that cannot be read is not one without the thing.
func (s Suite[R]) StoreErrorIsItself(t *testing.T) {
	m, h, b := s.New(t, t.TempDir())
	Must(t, h.DB.Close())
	_, err := m.Resolve(t.Context(), s.Default, "", nil)
	if err == nil || api.KindOf(err) == api.KindNotFound || b.Builds.Load() != 0 {
		t.Errorf("got %v (%s) after %d builds", err, api.KindOf(err), b.Builds.Load())
	}
	h.DB = nil
}

// Joins: many who want the same thing share one pull, though the first gives up.
func (s Suite[R]) Joins(t *testing.T) {
	m, _, b := s.New(t, t.TempDir())
	b.Started, b.Release = make(chan struct{}, 10), make(chan struct{})

	// The first begins the pull and gives up while it runs.
	first, giveUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := m.Resolve(first, s.Default, "", nil)
		gone <- err
	}()
	<-b.Started

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
			rec, err := m.Resolve(t.Context(), s.Default, "", func(string, api.Progress) { once.Do(ready.Done) })
			errs[i], ids[i] = err, s.ID(rec)
		}()
	}
	ready.Wait() // all watch the one pull
	giveUp()
	if err := <-gone; api.KindOf(err) != api.KindCancelled {
		t.Errorf("the first: %v", err)
	}
	close(b.Release)
	wg.Wait()
	for i := range n {
		if errs[i] != nil || ids[i] == "" || ids[i] != ids[0] {
			t.Errorf("joiner %d: %q, %v", i, ids[i], errs[i])
		}
	}
	if n := b.Builds.Load(); n != 1 {
		t.Errorf("%d builds, want 1", n)
	}
}

// SurvivesAnothersCancel: who waits gets the thing though another cancels.
func (s Suite[R]) SurvivesAnothersCancel(t *testing.T) {
	m, h, b := s.New(t, t.TempDir())
	b.Started, b.Release = make(chan struct{}, 10), make(chan struct{})
	op, err := m.Pull(t.Context(), api.Pull{Name: s.Default})
	Must(t, err)
	<-b.Started
	watching := make(chan struct{})
	done := make(chan error)
	go func() {
		var once sync.Once
		_, err := m.Resolve(t.Context(), s.Default, "", func(string, api.Progress) { once.Do(func() { close(watching) }) })
		done <- err
	}()
	<-watching
	Must(t, h.Ops.Cancel(op.ID))
	<-b.Started // it begins anew for the one who waits
	close(b.Release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if op, err = h.Ops.Wait(t.Context(), op.ID); err != nil || op.Status != api.OperationCancelled {
		t.Errorf("the cancelled: %s, %v", op.Status, err)
	}
	h.NothingLeft(t)
}

// CutOffByACrash: what a dead daemon half-made goes, and the next pull works.
func (s Suite[R]) CutOffByACrash(t *testing.T) {
	root := t.TempDir()
	m, h, b := s.New(t, root)
	b.Started, b.Release = make(chan struct{}, 1), make(chan struct{})
	_, err := m.Pull(t.Context(), api.Pull{Name: s.Default})
	Must(t, err)
	<-b.Started
	h.Close(t) // leaves the operation journalled as running, its staging behind

	m, h, _ = s.New(t, root)
	Must(t, os.MkdirAll(filepath.Join(h.L.Staging(), s.Noun+"-forgotten"), 0o700))
	Must(t, m.Recover(t.Context()))
	Must(t, h.Ops.Recover(t.Context()))
	ops, err := h.Ops.List(t.Context(), operation.Filter{Kind: s.Noun + ".pull"})
	Must(t, err)
	for _, op := range ops {
		if op, err = h.Ops.Wait(t.Context(), op.ID); err != nil || op.Status == api.OperationRunning {
			t.Errorf("operation: %+v, %v", op, err)
		}
	}
	h.NothingLeft(t)
	if _, err := m.Resolve(t.Context(), s.Default, "", nil); err != nil {
		t.Error(err)
	}
}

package store

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/google/go-cmp/cmp"
)

var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, path string) *DB {
	t.Helper()
	d, err := Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func temp(t testing.TB) *DB { return open(t, filepath.Join(t.TempDir(), "banger.db")) }

func wantKind(t *testing.T, err error, kind api.Kind) {
	t.Helper()
	if api.KindOf(err) != kind {
		t.Errorf("kind %q, want %q: %v", api.KindOf(err), kind, err)
	}
}

func TestVMsAreKeptAcrossReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "with space#and?percent%41", "banger.db")
	mkdir(t, filepath.Dir(path))
	d := open(t, path)
	code := 7
	v := VM{ID: "1a", Name: "web", Status: api.StatusStopped, Labels: map[string]string{"a": "b"}, RequestID: "r1",
		CreatedAt: day, StartedAt: &day, ExitCode: &code, Error: &api.Error{Kind: api.KindGuest, Message: "panic", Hint: "look"}}
	if err := d.InsertVM(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path)
	for name, get := range map[string]func() (VM, error){
		"id":      func() (VM, error) { return d.VM(t.Context(), "1a") },
		"name":    func() (VM, error) { return d.VMByName(t.Context(), "web") },
		"request": func() (VM, error) { return d.VMByRequestID(t.Context(), "r1") },
	} {
		got, err := get()
		if err != nil {
			t.Fatal(name, err)
		}
		if diff := cmp.Diff(v, got, cmp.AllowUnexported(api.Error{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if err := d.DeleteVM(t.Context(), "1a"); err != nil {
		t.Fatal(err)
	}
	_, err := d.VMByName(t.Context(), "web")
	wantKind(t, err, api.KindNotFound)
	wantKind(t, d.DeleteVM(t.Context(), "1a"), api.KindNotFound)
}

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// crash puts beside path what the disk would hold had the process died now: the
// files are copied while d is open, d is closed, and the copies put in place.
func crash(t *testing.T, d *DB, path string) {
	t.Helper()
	copies := map[string][]byte{}
	for _, p := range []string{path, path + "-wal"} {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		copies[p] = data
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for p, data := range copies {
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatWasReturnedSurvivesACrash(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "banger.db")
	for round := range 5 {
		d := open(t, path)
		list, err := d.VMs(ctx)
		if err != nil || len(list) != round {
			t.Fatal(round, list, err)
		}
		if err := d.Check(ctx); err != nil {
			t.Fatal(err)
		}
		if err := d.InsertVM(ctx, VM{ID: fmt.Sprint("id", round), Name: fmt.Sprint("n", round), CreatedAt: day}); err != nil {
			t.Fatal(err)
		}
		if err := d.SaveOperation(ctx, Operation{ID: "op", Kind: "k", Stage: fmt.Sprint(round), CreatedAt: day}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.AppendEvent(ctx, api.Event{Time: day}); err != nil {
			t.Fatal(err)
		}
		crash(t, d, path)
	}
	d := open(t, path)
	o, err := d.Operation(ctx, "op")
	if err != nil || o.Stage != "4" {
		t.Error(o, err)
	}
	if last, err := d.LastEvent(ctx); err != nil || last != 5 {
		t.Error(last, err)
	}
}

// TestEveryCutOfTheLogOpens cuts the log at many lengths, as a power cut may:
// each opens to some earlier moment, never to an error.
func TestEveryCutOfTheLogOpens(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	path := filepath.Join(dir, "banger.db")
	d := open(t, path)
	for i := range 10 {
		if err := d.InsertVM(ctx, VM{ID: fmt.Sprint("id", i), Name: fmt.Sprint("n", i), CreatedAt: day.Add(time.Duration(i) * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	crash(t, d, path)
	db, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	seen := -1
	const cuts = 60
	for i := range cuts + 1 {
		cut := len(log) * i / cuts
		p := filepath.Join(dir, fmt.Sprint(cut), "banger.db")
		mkdir(t, filepath.Dir(p))
		if err := os.WriteFile(p, db, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p+"-wal", log[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, p)
		list, err := d.VMs(ctx)
		if err != nil {
			t.Fatal(cut, err)
		}
		for i, v := range list {
			if v.Name != fmt.Sprint("n", i) {
				t.Errorf("cut %d: %v is out of order", cut, v.Name)
			}
		}
		if len(list) < seen {
			t.Errorf("cut %d holds %d, a shorter one held %d", cut, len(list), seen)
		}
		seen = len(list)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if seen != 10 {
		t.Errorf("the whole log held %d", seen)
	}
}

// BenchmarkOpen is the daemon's share of a start: 50 VMs, 1,000 operations.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "banger.db")
	d := open(b, path)
	for i := range 50 {
		if err := d.InsertVM(b.Context(), VM{ID: fmt.Sprint("id", i), Name: fmt.Sprint("n", i), CreatedAt: day}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 1000 {
		o := Operation{ID: fmt.Sprint(i), Kind: "vm.create", CreatedAt: day, Params: []byte(`{"name":"some parameters of a usual size"}`),
			Steps: make([]api.OperationStep, 4)}
		if err := d.SaveOperation(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
	for range 10000 {
		if _, err := d.AppendEvent(b.Context(), api.Event{Time: day, Kind: "operation.progress", Target: "0123456789ab", Data: map[string]string{"stage": "starting"}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d := open(b, path)
		if _, err := d.VMs(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSaveOperation(b *testing.B) {
	d := temp(b)
	o := Operation{ID: "1", Kind: "vm.create", CreatedAt: day, Steps: make([]api.OperationStep, 4)}
	n := 0
	for b.Loop() {
		n++ // what does not change is not written
		o.Stage = fmt.Sprint(n)
		if err := d.SaveOperation(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListVMs(b *testing.B) {
	d := temp(b)
	for i := range 50 {
		if err := d.InsertVM(b.Context(), VM{ID: fmt.Sprint("id", i), Name: fmt.Sprint("n", i), CreatedAt: day}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := d.VMs(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys>>20), "MiB")
}

package store

import (
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

func TestTheJournalIsSynchronous(t *testing.T) {
	t.Parallel()
	d := temp(t)
	is := func(when string, want int) {
		t.Helper()
		var got int
		if err := d.write.QueryRow("PRAGMA synchronous").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s synchronous is %d, want %d", when, got, want)
		}
	}
	for _, how := range []durability{relaxed, durable, relaxed} {
		if err := d.setSync(t.Context(), how); err != nil {
			t.Fatal(err)
		}
		is("when set", map[durability]int{relaxed: 1, durable: 2}[how])
	}
	// Whatever was written before, an operation is on the disk when it is saved.
	op := Operation{ID: "1", Kind: "k", Status: api.OperationRunning, CreatedAt: time.Now()}
	if err := d.SaveOperation(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	is("after an operation was saved", 2)
	var mode string
	if err := d.write.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Error(mode, err)
	}
}

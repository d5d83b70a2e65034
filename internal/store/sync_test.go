package store

import "testing"

func TestTheJournalIsSynchronous(t *testing.T) {
	t.Parallel()
	d := temp(t)
	for _, how := range []durability{relaxed, durable} {
		if err := d.setSync(t.Context(), how); err != nil {
			t.Fatal(err)
		}
		var got int
		if err := d.write.QueryRow("PRAGMA synchronous").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if want := map[durability]int{relaxed: 1, durable: 2}[how]; got != want {
			t.Errorf("synchronous is %d, want %d", got, want)
		}
	}
	var mode string
	if err := d.write.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Error(mode, err)
	}
}

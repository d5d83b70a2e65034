package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// Whoever wants to stop and delete what has filled the disk can still journal
// that, also after the daemon was started anew on the full disk.
func TestTheReserveOfAFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	path := filepath.Join(dir, "banger.db")
	d := open(t, path)
	fill := func() {
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for block := make([]byte, 4096); err == nil; {
			_, err = f.Write(block)
		}
	}
	fill()
	insert := func(i int) error {
		return d.InsertVM(ctx, VM{ID: fmt.Sprint(i), Name: fmt.Sprint("vm", i), CreatedAt: day})
	}
	for i := range 20 {
		if i == 10 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(t, path)
		}
		if err := insert(i); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	fill() // it is taken, too: now nothing goes
	var err error
	for i := 20; i < 2000 && err == nil; i++ {
		err = insert(i)
	}
	wantKind(t, err, api.KindNoSpace)
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	d.reserveTried = time.Time{}
	if err := insert(5000); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(path + "-reserve"); err != nil || fi.Size() != reserveBytes {
		t.Errorf("the reserve is not taken anew: %v %v", fi, err)
	}
}

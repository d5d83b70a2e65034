package guest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The first boot from a root disk of the VM's own is told from all later ones,
// and lets everybody in.
func TestFirstUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(dir, "trusted.test", []byte("1"), 0); err != nil {
		t.Skipf("needs root and a file system that keeps its attributes: %v", err)
	}
	for i, want := range []bool{true, false, false} {
		if fresh, err := firstUse(dir); err != nil || fresh != want {
			t.Errorf("boot %d: first %v, %v", i+1, fresh, err)
		}
		if i == 1 { // the user's own wish is heeded from then on
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		mode := os.FileMode(0o755)
		if i > 0 {
			mode = 0o700
		}
		if fi, err := os.Stat(dir); i != 1 && (err != nil || fi.Mode().Perm() != mode) {
			t.Errorf("boot %d: %v, %v", i+1, fi.Mode(), err)
		}
	}
	if _, err := firstUse(dir + "/none"); err == nil {
		t.Error("a root that is not there was used")
	}
}

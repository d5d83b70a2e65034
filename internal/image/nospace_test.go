package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/pull/pulltest"
)

// tmpfs mounts a small disk; only root may.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	pulltest.Must(t, os.Mkdir(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDiskIsNoSpace(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Debian archive")
	}
	// TMPDIR is changed: not parallel.
	cases := []struct {
		name        string
		tmp, images string // sizes of the disks
		check       bool   // is the room looked at first
		says        string
	}{
		{"the figure needed is named", "", "16m", true, "it needs"},
		{"the file system does not fit", "", "2m", false, "cannot write image"},
		{"the tree does not fit", "20m", "", false, "cannot unpack the packages"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			root, tmp := t.TempDir(), t.TempDir()
			if c.images != "" {
				root = tmpfs(t, c.images)
			}
			if c.tmp != "" {
				tmp = tmpfs(t, c.tmp)
			}
			t.Setenv("TMPDIR", tmp)
			f := newFixture(t, root)
			recipe := small()
			if c.check {
				recipe.ImageBytes = 64 << 20
			}
			f.real(recipe, "")
			_, err := f.Resolve(t.Context(), "small", "", nil)
			t.Log(err)
			if api.KindOf(err) != api.KindNoSpace || !strings.Contains(err.Error(), c.says) || api.AsError(err).Hint == "" {
				t.Errorf("got %v (%s)", err, api.KindOf(err))
			}
			f.NothingLeft(t)
			left, err := os.ReadDir(tmp)
			pulltest.Must(t, err)
			for _, e := range left {
				if e.Name() != "disk" && strings.HasPrefix(e.Name(), "banger-build") {
					t.Errorf("left: %s", e.Name())
				}
			}
		})
	}
}

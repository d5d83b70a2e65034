package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
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

// A disk that is full while an image is fetched or flattened is no-space with the
// figure that is needed, and keeps nothing of it.
func TestFullDiskInAPullFromARegistry(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t)
	// Zeros compress well: the download fits, the file system does not.
	reg.Push(t, "large:v1", ocitest.Image(t, v1.Config{}, ocitest.Gzip(ocitest.Tar(t, ocitest.File("noise", ocitest.Random(1, 8<<20))))))
	reg.Push(t, "swells:v1", ocitest.Image(t, v1.Config{}, ocitest.Gzip(ocitest.Tar(t, ocitest.File("text", strings.Repeat("not a hole\n", 2<<20))))))
	for name, c := range map[string]struct {
		what, says string
	}{
		"the download":    {"large:v1", "8"},
		"the file system": {"swells:v1", "it needs about 22MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _ := withOCI(t, tmpfs(t, "6m"))
			_, err := f.pull(t, api.PullImage{Name: reg.Ref(c.what)})
			if err == nil || err.Kind != api.KindNoSpace || !strings.Contains(err.Message, c.says) || err.Hint == "" {
				t.Errorf("%v (%s)", err, api.KindOf(err))
			}
			f.NothingLeft(t)
			if list, err := f.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("%+v %v", list, err)
			}
		})
	}
}

// Of an archive that is sent it is said how much there was no room for.
func TestFullDiskInAnImportFromAStream(t *testing.T) {
	t.Parallel()
	f, _ := withOCI(t, tmpfs(t, "6m"))
	_, err := f.ImportStream(t.Context(), api.ImportImage{Name: "app"}, strings.NewReader(ocitest.Random(1, 8<<20)))
	if api.KindOf(err) != api.KindNoSpace || !strings.Contains(err.Error(), "MiB, and its image more again") || api.AsError(err).Hint == "" {
		t.Errorf("%v (%s)", err, api.KindOf(err))
	}
	f.NothingLeft(t)
}

package image

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/bundle"
	"github.com/bangervm/banger/internal/pull/pulltest"
)

// A bundle whose image is here is known by its beginning. It is no success
// because of that: what is behind must be what its beginning says.
func TestABundleOfAnImageThatIsHereIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	random := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	root := filepath.Join(t.TempDir(), "root")
	pulltest.Must(t, os.WriteFile(root, random, 0o600))
	var b bytes.Buffer
	_, err := bundle.Write(t.Context(), &b, "image", bundled{Arch: runtime.GOARCH}, []bundle.File{{Name: memberRoot, Path: root}}, nil)
	pulltest.Must(t, err)
	path := filepath.Join(t.TempDir(), "app.tar.zst")
	pulltest.Must(t, os.WriteFile(path, b.Bytes(), 0o600))
	f, _ := other(t, nil)
	op, err := f.Pull(t.Context(), api.PullImage{Name: path})
	made[api.Image](t, f, op, err)
	changed := slices.Clone(b.Bytes())
	changed[len(changed)/2] ^= 1
	for name, c := range map[string][]byte{
		"cut in the middle": b.Bytes()[:b.Len()/2],
		"cut at the end":    b.Bytes()[:b.Len()-1],
		"changed":           changed,
		"longer":            append(slices.Clone(b.Bytes()), 0),
	} {
		pulltest.Must(t, os.WriteFile(path, c, 0o600))
		for _, as := range []string{"", "other"} {
			op, err = f.Pull(t.Context(), api.PullImage{Name: path, As: as})
			if err := failed(t, f, op, err); api.KindOf(err) != api.KindInvalid {
				t.Errorf("%s, as %q: %v (%s)", name, as, err, api.KindOf(err))
			}
		}
	}
	if _, err := f.Show(t.Context(), "other"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("a name was given to it: %v", err)
	}
	pulltest.Must(t, os.WriteFile(path, b.Bytes(), 0o600))
	op, err = f.Pull(t.Context(), api.PullImage{Name: path})
	if i := made[api.Image](t, f, op, err); i.Changed {
		t.Error("the whole one again: changed")
	}
}

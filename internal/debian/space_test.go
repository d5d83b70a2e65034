package debian

import (
	"path/filepath"
	"testing"

	"github.com/bangervm/banger/api"
)

// The hint names a folder that is there when it is read: what was to be written
// to goes with the failure.
func TestNoSpaceNamesAFolderThatStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, target := range []string{dir, filepath.Join(dir, "not", "there")} {
		e := api.AsError(CheckSpace("write it", Need{Dir: target, Bytes: 1 << 60}))
		if e == nil || e.Kind != api.KindNoSpace || e.Hint != "df -h "+filepath.Dir(dir) {
			t.Errorf("%s: %+v", target, e)
		}
	}
	// A disk of its own has no folder above.
	if e := api.AsError(CheckSpace("write it", Need{Dir: "/proc", Bytes: 1 << 60})); e == nil || e.Hint != "df -h /proc" {
		t.Errorf("a disk's top: %+v", e)
	}
}

package guest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestForgetMountPoints(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		more string // a file beside
		left string // the deepest folder that stays
	}{
		"nothing else":     {"", ""},
		"another release":  {"lib/modules/2/x", "lib/modules/2/x"},
		"a library":        {"lib/libx.so", "lib/libx.so"},
		"built for itself": {"lib/modules/1/x.ko", "lib/modules/1/x.ko"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upper := t.TempDir()
			if err := os.MkdirAll(filepath.Join(upper, "lib/modules/1"), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.more != "" {
				if err := os.MkdirAll(filepath.Join(upper, c.more), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			forgetMountPoints(upper, "1")
			_, err := os.Lstat(filepath.Join(upper, "lib"))
			if (err == nil) != (c.left != "") {
				t.Errorf("lib: %v", err)
			}
			if c.left != "" {
				if _, err := os.Lstat(filepath.Join(upper, c.left)); err != nil {
					t.Error(err)
				}
			}
			forgetMountPoints(upper, "") // a machine with no modules disk
		})
	}
}

package pull

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNear(t *testing.T) {
	t.Parallel()
	names := []string{"debian-bookworm", "debian-trixie", "alpine", "", "debian-bookworm"}
	for in, want := range map[string][]string{
		"debian-bokworm": {"debian-bookworm"},
		"bookworm":       {"debian-bookworm"},
		"DEBIAN-TRIXIE":  {"debian-trixie"},
		"debian":         {"debian-bookworm", "debian-trixie"},
		"alpina":         {"alpine"},
		"zzz":            nil,
		"":               nil,
	} {
		if d := cmp.Diff(want, near(in, names)); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}

func FuzzNear(f *testing.F) {
	f.Add("debian-bokworm", "debian-bookworm")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(near(a, []string{b})) > 1 {
			t.Error("one name became two")
		}
		if (distance(a, b) == 0) != (a == b) {
			t.Errorf("distance %d of %q and %q", distance(a, b), a, b)
		}
	})
}

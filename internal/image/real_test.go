package image

import (
	"os"
	"testing"
	"time"

	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
)

// TestBuildRealImage makes the default image from the Debian archive and keeps it in
// BANGER_IMAGE_OUT, if set.
func TestBuildRealImage(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Debian archive")
	}
	dir := os.Getenv("BANGER_IMAGE_OUT")
	if dir == "" {
		dir = t.TempDir()
	}
	var last debian.Progress
	m, err := Build(t.Context(), layout.ImageDir{Dir: dir}, DefaultRecipe(), BuildOptions{
		Mirrors: debian.HostMirrors("/"), AptOptions: debian.HostAptOptions(t.Context()), TempDir: debian.TempDir(), Now: time.Now(),
		Report: func(p debian.Progress) {
			if p.Stage != last.Stage {
				t.Logf("%s %d/%d %s", last.Stage, last.Done, last.Total, last.Unit)
			}
			last = p
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %d %v", m.Digest, m.SizeBytes, m.Source)
}

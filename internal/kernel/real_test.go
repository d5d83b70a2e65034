package kernel

import (
	"os"
	"testing"

	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
)

// TestBuildRealKernel makes the default kernel from the Debian archive and keeps it
// in BANGER_KERNEL_OUT, if set.
func TestBuildRealKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Debian archive")
	}
	dir := os.Getenv("BANGER_KERNEL_OUT")
	if dir == "" {
		dir = t.TempDir()
	}
	m, err := Build(t.Context(), layout.KernelDir{Dir: dir}, Recipe{Suite: "bookworm", Package: "linux-image-cloud-amd64"}, BuildOptions{
		Mirrors: debian.HostMirrors("/"), AptOptions: debian.HostAptOptions(t.Context()), TempDir: debian.TempDir(),
		Report: func(p debian.Progress) { t.Logf("%s %d/%d %s", p.Stage, p.Done, p.Total, p.Unit) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", m)
}

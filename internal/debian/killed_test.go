package debian

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestRemoveTempAfterAKill: mmdebstrap gets no chance to tidy up; as an
// ordinary user its tree belongs to another one.
func TestRemoveTempAfterAKill(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Debian archive")
	}
	t.Parallel()
	program, err := Check()
	if err != nil {
		t.Skip(err)
	}
	dir := TempDir()
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveTemp(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	unpacking := make(chan struct{}, 100)
	p, err := start(program, arguments(Options{
		Suite: "bookworm", Variant: "extract", Packages: []string{"base-files", "coreutils"}, Sources: HostMirrors("/").Sources("bookworm"),
	}), dir, func(p Progress) {
		if p.Stage == "unpacking packages" {
			unpacking <- struct{}{}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, p.stdout) }()
	select {
	case <-unpacking:
	case <-p.exited:
	case <-time.After(2 * time.Minute):
		t.Error("it does not get to the unpacking")
	}
	if err := syscall.Kill(-p.pgid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Error(err)
	}
	if err := p.wait(); err == nil {
		t.Error("it ended well though it was killed")
	}
	left, err := filepath.Glob(filepath.Join(dir, "mmdebstrap.*"))
	if err != nil || len(left) == 0 {
		t.Errorf("nothing was left to remove: %v, %v", left, err)
	}
	if err := RemoveTemp(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}

// Package hosttest has small disks for tests: file systems of their own that can
// be filled.
package hosttest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// XFS mounts an empty XFS of that size on the folder, which must be there. Its
// files can share blocks. It goes with the test, which is skipped where we are not
// root.
func XFS(t testing.TB, at string, size int64) {
	mount(t, at, size, "mkfs.xfs", "-q", "-m", "reflink=1")
}

// Ext4 does the same with an ext4.
func Ext4(t testing.TB, at string, size int64) {
	mount(t, at, size, "mke2fs", "-q", "-F", "-t", "ext4")
}

func mount(t testing.TB, at string, size int64, mkfs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, size)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{append(mkfs, disk), {"mount", "-o", "loop", disk, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s (what is needed: scripts/deps test)", c, err, out)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// Fill takes all room that is left on the disk of a folder, root's too.
func Fill(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := int64(0)
	for piece := int64(64 << 20); piece >= 4096; {
		switch err := syscall.Fallocate(int(f.Fd()), 0, at, piece); err {
		case nil:
			at += piece
		case syscall.ENOSPC:
			piece /= 2
		default:
			t.Fatal(err)
		}
	}
}

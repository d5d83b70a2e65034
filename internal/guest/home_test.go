package guest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSeedHome(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "root")
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, do := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(from, "dir/empty"), 0o755) },
		func() error { return os.WriteFile(filepath.Join(from, "dir/secret"), []byte("s"), 0o600) },
		func() error { return os.WriteFile(filepath.Join(from, "tool"), []byte("t"), 0o755) },
		func() error { return os.Chmod(filepath.Join(from, "tool"), os.ModeSetuid|0o755) },
		func() error { return os.Symlink("/nowhere", filepath.Join(from, "link")) },
		func() error { return os.Link(filepath.Join(from, "tool"), filepath.Join(from, "dir/hard")) },
		func() error { return syscall.Mkfifo(filepath.Join(from, "pipe"), 0o640) },
		func() error { return os.Chtimes(filepath.Join(from, "dir/secret"), old, old) },
		func() error { return os.Chmod(from, 0o700) },
		// What a start that was cut off left behind.
		func() error { return os.MkdirAll(to+".tmp/half", 0o700) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	xattr := unix.Lsetxattr(filepath.Join(from, "tool"), "user.note", []byte("v"), 0) == nil
	if os.Geteuid() == 0 {
		if err := os.Lchown(filepath.Join(from, "dir/secret"), 12, 34); err != nil {
			t.Fatal(err)
		}
	}
	if err := seedHome(from, to); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(to + ".tmp"); err == nil {
		t.Error("the half-made copy is still there")
	}
	for _, name := range []string{".", "dir", "dir/empty", "dir/secret", "tool", "link", "dir/hard", "pipe"} {
		var a, b unix.Stat_t
		if err := unix.Lstat(filepath.Join(from, name), &a); err != nil {
			t.Fatal(err)
		}
		if err := unix.Lstat(filepath.Join(to, name), &b); err != nil {
			t.Error(err)
			continue
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Nlink != b.Nlink || a.Mtim != b.Mtim {
			t.Errorf("%s: %+v became %+v", name, a, b)
		}
	}
	if xattr {
		var v [8]byte
		if n, err := unix.Lgetxattr(filepath.Join(to, "tool"), "user.note", v[:]); err != nil || string(v[:n]) != "v" {
			t.Errorf("attribute: %q, %v", v[:max(n, 0)], err)
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); err != nil || target != "/nowhere" {
		t.Errorf("link: %q, %v", target, err)
	}
}

func TestUpdateReplacesLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	if err := os.Symlink("../run/gone/stub.conf", path); err != nil {
		t.Fatal(err)
	}
	if err := update(filepath.Dir(path), filepath.Dir(path), filepath.Base(path), func([]byte) []byte { return []byte("new\n") }); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() || fi.Mode().Perm() != 0o644 {
		t.Errorf("got %v, %v", fi, err)
	}
	before, _ := os.Stat(path)
	if err := update(filepath.Dir(path), filepath.Dir(path), filepath.Base(path), func(old []byte) []byte { return old }); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("an unchanged file was rewritten")
	}
}

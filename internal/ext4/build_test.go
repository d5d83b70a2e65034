package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func buildIn(t *testing.T, fill func(*Builder) error) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs.ext4")
	err := Build(path, UUID("test"), fill)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func putFile(b *Builder, dir Node, name string, content []byte) error {
	id, err := b.File(Attr{Mode: unix.S_IFREG | 0o644, Time: then}, int64(len(content)), bytes.NewReader(content))
	if err != nil {
		return err
	}
	return b.Put(dir, name, Entry{Node: id})
}

func putFolder(b *Builder, dir Node, name string) (Node, error) {
	id, err := b.Make(Attr{Mode: unix.S_IFDIR | 0o755, Time: then})
	if err != nil {
		return 0, err
	}
	return id, b.Put(dir, name, Entry{Node: id})
}

func debugfs(t *testing.T, path, request string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "debugfs", "-R", request, path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// What was removed, replaced or never named is gone, and its blocks are free and
// cost no disk.
func TestRemovedFilesFreeTheirBlocks(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("large"), 1<<20)
	path := buildIn(t, func(b *Builder) error {
		dir, err := putFolder(b, Root, "dir")
		if err == nil {
			_, err = putFolder(b, dir, "sub")
		}
		for i := 0; i < 4 && err == nil; i++ {
			err = putFile(b, dir, fmt.Sprint(i), large)
		}
		if err == nil {
			err = putFile(b, Root, "kept", []byte("kept"))
		}
		if err != nil {
			return err
		}
		e, _ := b.Lookup(dir, "2")
		if err := b.Put(Root, "other name", e); err != nil {
			return err
		}
		b.Remove(Root, "dir")
		b.Remove(Root, "nothing")
		_, err = b.File(Attr{Mode: unix.S_IFREG}, int64(len(large)), bytes.NewReader(large))
		return err
	})
	fsck(t, path)
	if got := debugfs(t, path, "cat \"/other name\""); got != string(large) {
		t.Errorf("the other name has %d bytes", len(got))
	}
	if got := debugfs(t, path, "ls -p /"); strings.Contains(got, "/dir/") || !strings.Contains(got, "/kept/") {
		t.Errorf("root: %s", got)
	}
	if n := blocks(t, path); n > int64(len(large))+1<<20 {
		t.Errorf("%d bytes of disk for a file of %d", n, len(large))
	}
}

func TestHolesAndManyRuns(t *testing.T) {
	t.Parallel()
	// More runs than are kept apart; then more than the inode holds.
	content := make([]byte, 8<<20)
	for i := 0; i < len(content); i += 2 * blockSize {
		content[i+7] = byte(i>>13) | 1
	}
	path := buildIn(t, func(b *Builder) error {
		return errors.Join(
			putFile(b, Root, "runs", content),
			putFile(b, Root, "few", content[:20*blockSize-5]),
			putFile(b, Root, "zeros", make([]byte, 5<<20)),
			putFile(b, Root, "hole first", append(make([]byte, 1<<20), 'x')),
			putFile(b, Root, "hole last", append([]byte("x"), make([]byte, 1<<20)...)))
	})
	fsck(t, path)
	for name, want := range map[string][]byte{
		"runs": content, "few": content[:20*blockSize-5], "zeros": make([]byte, 5<<20),
		"\"hole first\"": append(make([]byte, 1<<20), 'x'), "\"hole last\"": append([]byte("x"), make([]byte, 1<<20)...),
	} {
		if got := debugfs(t, path, "cat "+name); got != string(want) {
			t.Errorf("%s: %d bytes, want %d, or other ones", name, len(got), len(want))
		}
	}
	if n := blocks(t, path); n > 8<<20 {
		t.Errorf("%d bytes of disk", n)
	}
}

func TestManyFoldersAndNames(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 130,000 folders")
	}
	path := buildIn(t, func(b *Builder) error {
		// Beside its folders' "..", a folder has its own two names.
		for name, n := range map[string]int{"most": maxLinks - 2, "more": maxLinks - 1} {
			dir, err := putFolder(b, Root, name)
			for i := 0; i < n && err == nil; i++ {
				_, err = putFolder(b, dir, fmt.Sprint(i))
			}
			if err != nil {
				return err
			}
		}
		if err := putFile(b, Root, "0", []byte("x")); err != nil {
			return err
		}
		e, _ := b.Lookup(Root, "0")
		for i := 1; i < maxLinks; i++ {
			if err := b.Put(Root, fmt.Sprint(i), e); err != nil {
				return err
			}
		}
		if err := b.Put(Root, "one more", e); err == nil {
			return errors.New("a file took one name too many")
		}
		return nil
	})
	fsck(t, path)
	if out := debugfs(t, path, "stat /most"); !strings.Contains(out, "Links: 65000 ") {
		t.Errorf("a folder of as many as can be counted: %s", out)
	}
	if out := debugfs(t, path, "stat /more"); !strings.Contains(out, "Links: 1 ") {
		t.Errorf("a folder of one more: %s", out)
	}
	if out := debugfs(t, path, "stat /64999"); !strings.Contains(out, "Links: 65000") {
		t.Errorf("a file of 65,000 names: %s", out)
	}
}

// The times of an inode go from 1901 to 2446, with nanoseconds.
func TestTimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t    time.Time
		want uint64
	}{
		{time.Time{}, 0},
		{time.Unix(0, 0), 0},
		{time.Unix(1, 999_999_999), 1 | 999_999_999<<34},
		{time.Unix(-1, 0), 0xffffffff},
		{time.Unix(-0x80000000, 5), 0x80000000 | 5<<34},
		{time.Unix(-0x80000001, 5), 0x80000000},
		{time.Unix(0x7fffffff, 0), 0x7fffffff},
		{time.Unix(0x80000000, 0), 0x180000000},
		{time.Unix(0xffffffff, 0), 0x1ffffffff},
		{time.Unix(0x37fffffff, 1), 0x37fffffff | 1<<34},
		{time.Unix(0x380000000, 1), 0x37fffffff},
	} {
		if got := storedTime(c.t); got != c.want {
			t.Errorf("%v: %#x, want %#x", c.t, got, c.want)
		}
	}
}

func TestLostAndFoundIsThere(t *testing.T) {
	t.Parallel()
	path := buildIn(t, func(b *Builder) error {
		id, err := putFolder(b, Root, "lost+found")
		if err != nil {
			return err
		}
		return putFile(b, id, "mine", []byte("x"))
	})
	fsck(t, path)
	if got := debugfs(t, path, "cat lost+found/mine"); got != "x" {
		t.Errorf("got %q", got)
	}
	path = buildIn(t, func(*Builder) error { return nil })
	fsck(t, path)
}

func TestBuilderRefuses(t *testing.T) {
	t.Parallel()
	attr := func(mode uint32) Attr { return Attr{Mode: mode, Time: then} }
	for name, c := range map[string]struct {
		fill func(*Builder) error
		want string
	}{
		"no type":         {func(b *Builder) error { _, err := b.Make(attr(0o644)); return err }, "no type"},
		"a folder's file": {func(b *Builder) error { _, err := b.File(attr(unix.S_IFDIR), 0, nil); return err }, "no file's"},
		"too large":       {func(b *Builder) error { _, err := b.File(attr(unix.S_IFREG), maxFile+1, nil); return err }, "at most"},
		"negative":        {func(b *Builder) error { _, err := b.File(attr(unix.S_IFREG), -1, nil); return err }, "at most"},
		"cut short":       {func(b *Builder) error { _, err := b.File(attr(unix.S_IFREG), 9, strings.NewReader("x")); return err }, "8 bytes are missing"},
		"twice":           {func(b *Builder) error { return errors.Join(putFile(b, Root, "a", nil), putFile(b, Root, "a", nil)) }, "twice"},
		"dot":             {func(b *Builder) error { return putFile(b, Root, ".", nil) }, "not valid"},
		"slash":           {func(b *Builder) error { return putFile(b, Root, "a/b", nil) }, "not valid"},
		"long":            {func(b *Builder) error { return putFile(b, Root, strings.Repeat("n", 256), nil) }, "not valid"},
		"link to nothing": {func(b *Builder) error { _, err := b.Make(attr(unix.S_IFLNK)); return err }, "target is not valid"},
		"type changes":    {func(b *Builder) error { return b.Set(Root, attr(unix.S_IFREG)) }, "cannot become"},
		"device": {func(b *Builder) error {
			a := attr(unix.S_IFCHR)
			a.Device = unix.Mkdev(1<<12, 0)
			_, err := b.Make(a)
			return err
		}, "device"},
		"attribute's name": {func(b *Builder) error {
			a := attr(unix.S_IFDIR)
			a.Xattrs = map[string]string{"user." + strings.Repeat("n", 251): ""} // Linux counts the prefix
			return b.Set(Root, a)
		}, "not valid"},
		"attribute's value": {func(b *Builder) error {
			a := attr(unix.S_IFDIR)
			a.Xattrs = map[string]string{"user.a": strings.Repeat("v", 4050)}
			return b.Set(Root, a)
		}, "one block"},
		"fill fails": {func(*Builder) error { return errors.New("mine") }, "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			err := Build(filepath.Join(dir, "x"), UUID(""), c.fill)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A full disk is told as the host tells it, and nothing is left.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	err := Build(filepath.Join(dir, "x"), UUID(""), func(b *Builder) error {
		for i := range 40 {
			if err := putFile(b, Root, fmt.Sprint(i), bytes.Repeat([]byte("x"), 1<<20)); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

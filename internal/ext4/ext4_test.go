package ext4

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var then = time.Date(2024, 2, 29, 12, 30, 15, 0, time.UTC)

// capNetRaw is a file capability as the kernel stores it: version 2,
// effective, CAP_NET_RAW permitted.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

type entry struct {
	h    tar.Header
	data string
}

// tree has one of everything a file system keeps.
func tree() []entry {
	x := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[xattrPrefix+kv[i]] = kv[i+1]
		}
		return m
	}
	long := strings.Repeat("n", 255)
	return []entry{
		{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "bin", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "bin/ping", Mode: 0o755, PAXRecords: x("security.capability", capNetRaw)}, "ping"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "bin/su", Mode: 0o4755}, "su"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "bin/wall", Mode: 0o2755, Gid: 5}, "wall"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "bin/su2", Linkname: "bin/su"}, ""},
		{tar.Header{Typeflag: tar.TypeLink, Name: "su3", Linkname: "bin/su"}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "owned", Mode: 0o640, Uid: 1000, Gid: 70000}, "x"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "far", Mode: 0o600, Uid: 4000000000, Gid: 4000000001}, "x"},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "short", Linkname: "bin/su"}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "long", Linkname: "/" + strings.Repeat("l/", 100)}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 300}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "run/pipe", Mode: 0o600}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "a/b/" + long, Mode: 0o644}, "deep"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "user", Mode: 0o644, PAXRecords: x("user.one", "1", "user.two", strings.Repeat("v", 2000))}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "dîr/ünïcode", Mode: 0o644}, "ü"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "empty", Mode: 0o000}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644}, strings.Repeat("0123456789abcdef", 1<<16)},
	}
}

func fill(entries []entry) func(*tar.Writer) error {
	return func(tw *tar.Writer) error {
		for _, e := range entries {
			h := e.h
			h.Size, h.ModTime = int64(len(e.data)), then
			m := Member(&h, h.Name, h.Linkname)
			if err := tw.WriteHeader(m); err != nil {
				return err
			}
			if _, err := io.WriteString(tw, e.data); err != nil {
				return err
			}
		}
		return nil
	}
}

func write(t *testing.T, entries []entry) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs.ext4")
	if err := Write(path, UUID("test"), fill(entries)); err != nil {
		t.Fatal(err)
	}
	return path
}

// fsck checks that e2fsck finds nothing to remark.
func fsck(t *testing.T, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "e2fsck", "-fn", path).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("no e2fsck")
	}
	if err != nil || strings.Contains(string(out), "? no") || strings.Contains(string(out), "WARNING") {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

func TestWritePassesFsck(t *testing.T) {
	t.Parallel()
	fsck(t, write(t, tree()))
}

func TestWriteManyFilesPassesFsck(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 40,000 files")
	}
	var entries []entry
	for i := range 40000 {
		entries = append(entries, entry{tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i%50, i), Mode: 0o644}, "x"})
	}
	fsck(t, write(t, entries))
}

// TestFidelity mounts the file system where it may, and compares everything.
func TestFidelity(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount; TestFidelityUnmounted looks at the same tree")
	}
	path := write(t, tree())
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "ro,loop", path, dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, e := range tree() {
		if e.h.Typeflag == tar.TypeLink {
			continue
		}
		p := filepath.Join(dir, e.h.Name)
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			t.Error(err)
			continue
		}
		types := map[byte]uint32{
			tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeChar: unix.S_IFCHR,
			tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO,
		}
		mode := uint32(e.h.Mode)
		if e.h.Typeflag == tar.TypeSymlink {
			mode = 0o777
			if target, err := os.Readlink(p); err != nil || target != e.h.Linkname {
				t.Errorf("%s: links to %q, %v", e.h.Name, target, err)
			}
		}
		if st.Mode != types[e.h.Typeflag]|mode {
			t.Errorf("%s: mode %o, want %o", e.h.Name, st.Mode, types[e.h.Typeflag]|mode)
		}
		if int(st.Uid) != e.h.Uid || int(st.Gid) != e.h.Gid {
			t.Errorf("%s: owner %d:%d, want %d:%d", e.h.Name, st.Uid, st.Gid, e.h.Uid, e.h.Gid)
		}
		if e.h.Typeflag == tar.TypeChar || e.h.Typeflag == tar.TypeBlock {
			if unix.Major(st.Rdev) != uint32(e.h.Devmajor) || unix.Minor(st.Rdev) != uint32(e.h.Devminor) {
				t.Errorf("%s: device %d:%d", e.h.Name, unix.Major(st.Rdev), unix.Minor(st.Rdev))
			}
		}
		if st.Mtim.Sec != then.Unix() && e.h.Name != "./" {
			t.Errorf("%s: time %v", e.h.Name, time.Unix(st.Mtim.Sec, 0))
		}
		for k, v := range e.h.PAXRecords {
			buf := make([]byte, 4096)
			n, err := unix.Lgetxattr(p, strings.TrimPrefix(k, xattrPrefix), buf)
			if err != nil || string(buf[:n]) != v {
				t.Errorf("%s: %s is %q, %v", e.h.Name, k, buf[:max(n, 0)], err)
			}
		}
		if e.h.Typeflag == tar.TypeReg {
			if b, err := os.ReadFile(p); err != nil || string(b) != e.data {
				t.Errorf("%s: %d bytes, want %d, %v", e.h.Name, len(b), len(e.data), err)
			}
		}
	}
	var a, b, c syscall.Stat_t
	for p, st := range map[string]*syscall.Stat_t{"bin/su": &a, "bin/su2": &b, "su3": &c} {
		if err := syscall.Lstat(filepath.Join(dir, p), st); err != nil {
			t.Fatal(err)
		}
	}
	if a.Ino != b.Ino || a.Ino != c.Ino || a.Nlink != 3 {
		t.Errorf("hard links: inodes %d %d %d, %d names", a.Ino, b.Ino, c.Ino, a.Nlink)
	}
}

// TestFidelityUnmounted asks debugfs, which needs no root.
func TestFidelityUnmounted(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("debugfs"); err != nil {
		t.Skip("no debugfs")
	}
	path := write(t, tree())
	ask := func(request string) string {
		out, err := exec.CommandContext(t.Context(), "debugfs", "-R", request, path).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for request, want := range map[string][]string{
		"stat /bin/su":     {"Mode:  04755", "Links: 3", "Size: 2"},
		"stat /su3":        {"Mode:  04755", "Links: 3"},
		"stat /bin/ping":   {"security.capability (20)"},
		"stat /owned":      {"User:  1000", "Group: 70000", "Mode:  0640"},
		"stat /dev/null":   {"Type: character special", "number: 01:03"},
		"stat /run/pipe":   {"Type: FIFO"},
		"stat /tmp":        {"Mode:  01777", "ctime: 0x65e078d7"},
		"cat /dîr/ünïcode": {"ü"},
	} {
		out := ask(request)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", request, w, out)
			}
		}
	}
}

func TestWriteIsReproducible(t *testing.T) {
	t.Parallel()
	a, err := os.ReadFile(write(t, tree()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(write(t, tree()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two file systems of the same tree differ")
	}
}

func TestWriteLeavesNothingOnErrors(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	cases := map[string]struct {
		fill func(*tar.Writer) error
		want error
	}{
		"source fails at once": {func(*tar.Writer) error { return mine }, mine},
		"source fails later": {func(tw *tar.Writer) error {
			if err := fill(tree())(tw); err != nil {
				return err
			}
			return mine
		}, mine},
		"file cut short": {func(tw *tar.Writer) error {
			return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: 5})
		}, nil},
		"link to nothing": {fill([]entry{{tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "y"}, ""}}), nil},
		"file as folder": {fill([]entry{
			{tar.Header{Typeflag: tar.TypeReg, Name: "x"}, "1"},
			{tar.Header{Typeflag: tar.TypeReg, Name: "x/y/z"}, "1"},
		}), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			err := Write(filepath.Join(dir, "fs"), UUID(""), c.fill)
			if err == nil || (c.want != nil && !errors.Is(err, c.want)) {
				t.Errorf("got %v", err)
			}
			left, _ := os.ReadDir(dir)
			if len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestMemberPath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"./": "", "/": "", ".": "", "": "", "./a/b": "a/b", "/etc//x/": "etc/x", "a/./b": "a/b", "..a/b..": "..a/b..",
	} {
		got, err := MemberPath(in)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%q: %v %s", in, err, d)
		}
	}
	for _, in := range []string{"..", "../x", "a/../b", "a/..", "/..", "a\x00b", strings.Repeat("n", 256), strings.Repeat("a/", 2100)} {
		if got, err := MemberPath(in); err == nil {
			t.Errorf("%.40q gave %.40q", in, got)
		}
	}
}

// FuzzWrite feeds archives: whatever is in them, an error or a sound file
// system comes out.
func FuzzWrite(f *testing.F) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range tree()[:14] {
		h := e.h
		h.Size, h.ModTime = int64(len(e.data)), then
		if err := tw.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.data); err != nil {
			f.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, archive []byte) {
		path := filepath.Join(dir, fmt.Sprintf("%d.ext4", os.Getpid()))
		_ = os.Remove(path)
		err := Write(path, UUID(""), func(tw *tar.Writer) error {
			tr := tar.NewReader(bytes.NewReader(archive))
			for range 100 {
				h, err := tr.Next()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				if h.Size > 1<<20 {
					return errors.New("large")
				}
				if err := tw.WriteHeader(Member(h, h.Name, h.Linkname)); err != nil {
					return err
				}
				if _, err := io.Copy(tw, tr); err != nil {
					return err
				}
			}
			return nil
		})
		if _, serr := os.Stat(path); (err == nil) != (serr == nil) {
			t.Errorf("error %v, but the file: %v", err, serr)
		}
	})
}

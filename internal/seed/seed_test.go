package seed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
)

type member struct {
	name, data string
	kind       byte
	link       string
	mode       int64
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, m := range members {
		if m.kind == 0 {
			m.kind = tar.TypeReg
			if strings.HasSuffix(m.name, "/") {
				m.kind = tar.TypeDir
			}
		}
		if m.mode == 0 {
			m.mode = 0o755
		}
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Mode: m.mode, Size: int64(len(m.data)), Uid: 1000, Gid: 1000, ModTime: time.Unix(1e9, 0)}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// look lists a folder of the seed by debugfs, as kind+mode owner name.
func look(t *testing.T, path, dir string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "debugfs", "-R", "ls -p "+dir, path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "/") // /inode/mode/uid/gid/name/size/
		if len(f) < 7 || f[5] == "" || f[5] == ".." || f[5] == "lost+found" {
			continue
		}
		list = append(list, fmt.Sprintf("%s %s:%s %s", f[2], f[3], f[4], f[5]))
	}
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(strings.Fields(a)[2], strings.Fields(b)[2]) })
	return list
}

func TestWriteOfAnArchive(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		members []member
		hoisted bool
		want    []string
	}{
		"plain": {
			members: []member{{name: "./", mode: 0o777}, {name: "./.bashrc", data: "x", mode: 0o644}, {name: "bin/"}, {name: "bin/tool", data: "y"}, {name: "l", kind: tar.TypeSymlink, link: "../../etc/passwd"}},
			want:    []string{"040755 0:0 .", "100644 0:0 .bashrc", "040755 0:0 bin", "120777 0:0 l"},
		},
		"nested one level too deep": {
			members: []member{{name: "./", mode: 0o711}, {name: "root/", mode: 0o700}, {name: "root/.bashrc", data: "x", mode: 0o600}, {name: "root/two", kind: tar.TypeLink, link: "root/.bashrc", mode: 0o600}},
			hoisted: true,
			want:    []string{"040700 0:0 .", "100600 0:0 .bashrc", "100600 0:0 two"},
		},
		"nested beside others": {
			members: []member{{name: "root/a", data: "x", mode: 0o600}, {name: "b", data: "y", mode: 0o600}},
			hoisted: true,
			want:    []string{"040700 0:0 .", "100600 0:0 a", "100600 0:0 b"},
		},
		"two levels keep the second": {
			members: []member{{name: "root/root/a", data: "x", mode: 0o600}},
			hoisted: true,
			want:    []string{"040700 0:0 .", "040755 0:0 root"},
		},
		"a file of that name is a file": {
			members: []member{{name: "root", data: "x", mode: 0o600}},
			want:    []string{"040700 0:0 .", "100600 0:0 root"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain := archive(t, c.members...)
			for how, data := range map[string][]byte{"tar": plain, "gzip": gzipped(t, plain), "zstd": zstded(t, plain)} {
				src, dst := filepath.Join(t.TempDir(), "seed"), filepath.Join(t.TempDir(), "seed.ext4")
				if err := os.WriteFile(src, data, 0o600); err != nil {
					t.Fatal(err)
				}
				info, err := Write(t.Context(), dst, src, nil)
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if info.Hoisted != c.hoisted {
					t.Errorf("%s: hoisted is %v", how, info.Hoisted)
				}
				if d := cmp.Diff(c.want, look(t, dst, "/")); d != "" {
					t.Errorf("%s: %s", how, d)
				}
				if out, err := exec.CommandContext(t.Context(), "e2fsck", "-fn", dst).CombinedOutput(); err != nil {
					t.Errorf("%s: e2fsck: %v: %s", how, err, out)
				}
			}
		})
	}
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	return w.EncodeAll(b, nil)
}

func TestWriteOfAFolder(t *testing.T) {
	dir := t.TempDir()
	for path, data := range map[string]string{".profile": "x", "deep/er/file": "y", "root/.vimrc": "set nu"} {
		p := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Link(filepath.Join(dir, ".profile"), filepath.Join(dir, "again")), os.Symlink("/etc/shadow", filepath.Join(dir, "away")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sock, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(sock) }()
	t.Chdir(dir) // a socket's path is short
	if err := syscall.Bind(sock, &syscall.SockaddrUnix{Name: "sock"}); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "seed.ext4")
	var seen int64
	info, err := Write(t.Context(), dst, dir, func(n int64) { seen = n })
	if err != nil {
		t.Fatal(err)
	}
	if !info.Hoisted || info.Bytes != 8 || seen != 8 {
		t.Errorf("%+v, reported %d", info, seen)
	}
	want := []string{"040755 0:0 .", "100600 0:0 .profile", "100600 0:0 .vimrc", "100600 0:0 again", "120777 0:0 away", "040755 0:0 deep", "010600 0:0 pipe"}
	if d := cmp.Diff(want, look(t, dst, "/")); d != "" {
		t.Error(d)
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	small := limits{entries: 3, bytes: 1000}
	cases := map[string]struct {
		data []byte
		kind api.Kind
		want string
	}{
		"both levels":        {archive(t, member{name: "root/x"}, member{name: "x"}), api.KindInvalid, `it has "x" both at its top and in its folder root`},
		"both levels, later": {archive(t, member{name: "x/y"}, member{name: "root/x/z"}), api.KindInvalid, "both at its top"},
		"climbs out":         {archive(t, member{name: "../x"}), api.KindInvalid, "leaves the archive"},
		"link climbs out":    {archive(t, member{name: "x", kind: tar.TypeLink, link: "../../etc/passwd"}), api.KindInvalid, "leaves the archive"},
		"link to nothing":    {archive(t, member{name: "x", kind: tar.TypeLink, link: "y"}), api.KindInvalid, ""},
		"under a link":       {archive(t, member{name: "x", kind: tar.TypeSymlink, link: "/etc"}, member{name: "x/passwd", data: "x"}), api.KindInvalid, ""},
		"a device":           {archive(t, member{name: "x", kind: tar.TypeBlock}), api.KindInvalid, "is a device"},
		"the home replaced":  {archive(t, member{name: ".", kind: tar.TypeSymlink, link: "/etc"}), api.KindInvalid, "would replace the home"},
		"too many":           {archive(t, member{name: "1"}, member{name: "2"}, member{name: "3"}, member{name: "4"}), api.KindInvalid, "more than 3 entries"},
		"too large":          {archive(t, member{name: "1", data: strings.Repeat("x", 1001)}), api.KindInvalid, "larger than 1000 bytes"},
		"a bomb":             {zstded(t, make([]byte, 64<<20)), api.KindInvalid, ""},
		"a bomb of headers":  {zstded(t, bytes.Repeat(archive(t, member{name: "./"})[:512], 1<<18)), api.KindInvalid, errLarge.Error()},
		"cut short":          {archive(t, member{name: "1", data: "1234"})[:514], api.KindInvalid, ""},
		"no archive":         {bytes.Repeat([]byte("hello, world. "), 100), api.KindInvalid, ""},
		"nothing in it":      {archive(t), api.KindInvalid, "it is empty"},
		"no bytes":           {nil, api.KindInvalid, "it is empty"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			src := filepath.Join(t.TempDir(), "seed.tar")
			if err := os.WriteFile(src, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := write(t.Context(), filepath.Join(dir, "s"), src, nil, small)
			if api.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), src) {
				t.Errorf("got %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "s"), "/no/such", nil); api.KindOf(err) != api.KindNotFound {
		t.Errorf("got %v", err)
	}
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "s"), os.DevNull, nil); api.KindOf(err) != api.KindInvalid {
		t.Errorf("got %v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "s"), pipe, nil); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "neither a folder nor an archive") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, filepath.Join(t.TempDir(), "s"), t.TempDir(), nil); api.KindOf(err) != api.KindCancelled {
		t.Errorf("got %v", err)
	}
}

// FuzzArchive feeds archives: whatever they hold, what is handed on stays in the
// home, belongs to root and within the limits.
func FuzzArchive(f *testing.F) {
	f.Add(archive(f, member{name: "root/a", data: "x"}, member{name: "b/"}, member{name: "l", kind: tar.TypeLink, link: "root/a"}))
	f.Add(archive(f, member{name: "./", mode: 0o700}, member{name: "s", kind: tar.TypeSymlink, link: "/x"}))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0})
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		lim := limits{entries: 100, bytes: 1 << 20}
		s := &sink{ctx: context.Background(), limits: lim, tops: map[string]bool{}, tw: tar.NewWriter(&out)}
		if s.archive(bytes.NewReader(data)) != nil || s.tw.Close() != nil {
			return
		}
		n, size := 0, int64(0)
		for tr := tar.NewReader(&out); ; n++ {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if path, err := ext4.MemberPath(h.Name); err != nil || path == "" || path != strings.TrimSuffix(h.Name, "/") || h.Uid != 0 || h.Gid != 0 {
				t.Fatalf("member %q of %d:%d, %v", h.Name, h.Uid, h.Gid, err)
			}
			if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
				t.Fatalf("device %q", h.Name)
			}
			size += h.Size
		}
		if n > lim.entries || size > lim.bytes || n != s.info.Entries || size != s.info.Bytes {
			t.Fatalf("%d entries, %d bytes; it says %+v", n, size, s.info)
		}
	})
}

package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layers/layerstest"
)

// capNetRaw is a file capability as the kernel stores it.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// TestAgainstUmoci unpacks images with umoci too: every path, type, mode, owner,
// time, size, content, link, device and extended attribute must be the same. An
// ordinary user's umoci has no owners, devices and attributes; the rest is
// compared.
func TestAgainstUmoci(t *testing.T) {
	t.Parallel()
	shapes := map[string][]layerstest.Source{
		"one of everything": {layerstest.Tar(everything()...)},
		"layers upon layers": {
			layerstest.Tar(everything()...),
			layerstest.Tar(
				folder("d"), file("d/new", "2"), file("d/.wh.file", ""), file("removed/.wh..wh..opq", ""), file("removed/kept", "2"),
				symlink("becomes-link", "d"), folder("becomes-folder"), file("becomes-folder/x", "2"), file("becomes-file", "2"),
				link("hard-up", "d/hard1"), mode(file("d/sticky/in", "2"), 0o600), mode(folder("d/sticky"), 0o700),
				file("lib/through", "2"), file("lib/.wh.from-lib", ""), file(".wh.gone", "")),
			layerstest.Tar(file("d/.wh.hard1", ""), file("hard-up2", "3"), link("d/hard3", "hard-up"), mode(folder("./"), 0o711), file(".wh.becomes-link", "")),
		},
		"sparse files":    {sparseTar(t, "pax", sparseFile(t))},
		"ten layers":      layerstest.Big{Layers: 10, Entries: 1000, Bytes: 8 << 20}.Sources(),
		"no folder known": {layerstest.Tar(file("a/b/c", "1"), symlink("x/y/z", "/a")), layerstest.Tar(file("x/y/z/b/e", "2"))},
	}
	for seed := range uint64(12) {
		shapes[fmt.Sprint("random ", seed)] = randomStack(seed)
	}
	for name, sources := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compareWithUmoci(t, sources)
		})
	}
}

func compareWithUmoci(t *testing.T, sources []layerstest.Source) {
	dir, start := t.TempDir(), time.Now()
	layout := filepath.Join(dir, "layout")
	blobs, err := layerstest.Layout(layout, "v1", layerstest.Gzip, sources)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "fs.ext4")
	if _, err := Write(t.Context(), path, ext4.UUID("umoci"), fromBlobs(blobs), Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	fsck(t, path)
	root := os.Getuid() == 0
	args := []string{"unpack", "--image", layout + ":v1", filepath.Join(dir, "bundle")}
	if !root {
		args = append(args, "--rootless")
	}
	if out, err := exec.CommandContext(t.Context(), "umoci", args...).CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v\n%s", err, out)
	}
	want := snapshot(t, filepath.Join(dir, "bundle", "rootfs"))
	got := read(t, path)
	if mounted := filepath.Join(dir, "mounted"); root && mount(t, path, mounted) {
		byKernel := snapshot(t, mounted)
		delete(byKernel, "/lost+found")
		if d := diff(got, withoutXattrs(byKernel), true); d != "" {
			t.Errorf("our reader against the kernel: %s", d)
		}
		got = byKernel
	} else {
		want = withoutXattrs(want)
	}
	for name, f := range want {
		// Folders that no member names are as new as umoci's run; so is the root.
		if f.Mode&unix.S_IFMT == unix.S_IFDIR && f.Time.After(start) {
			f.Time = got[name].Time
			want[name] = f
		}
	}
	if d := diff(want, got, root); d != "" {
		t.Errorf("umoci against ours: %s", d)
	}
}

func mount(t *testing.T, path, dir string) bool {
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "ro,loop", path, dir).CombinedOutput(); err != nil {
		t.Logf("cannot mount, so no extended attributes are compared: %v: %s", err, out)
		return false
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return true
}

func withoutXattrs(files map[string]layerstest.File) map[string]layerstest.File {
	files = maps.Clone(files)
	for name, f := range files {
		f.Xattrs = nil
		files[name] = f
	}
	return files
}

// diff compares two trees. Inode numbers differ; which names are one file does not.
func diff(want, got map[string]layerstest.File, owners bool) string {
	want, got = plain(want, owners), plain(got, owners)
	if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
		return "paths: " + d
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if d := cmp.Diff(want[name], got[name], cmpopts.EquateEmpty()); d != "" {
			return name + ": " + d
		}
	}
	return ""
}

func plain(files map[string]layerstest.File, owners bool) map[string]layerstest.File {
	first := map[uint64]uint64{}
	out := map[string]layerstest.File{}
	for i, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		n, ok := first[f.Inode]
		if !ok {
			n = uint64(i)
			first[f.Inode] = n
		}
		f.Inode = n
		if f.Mode&unix.S_IFMT == unix.S_IFDIR {
			f.Links = 0 // file systems count them differently
		}
		if !owners {
			f.UID, f.GID = 0, 0
		}
		out[name] = f
	}
	return out
}

// snapshot reads a folder through the kernel.
func snapshot(t *testing.T, root string) map[string]layerstest.File {
	t.Helper()
	files := map[string]layerstest.File{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		f := layerstest.File{
			Mode: st.Mode, UID: st.Uid, GID: st.Gid, Links: int(st.Nlink), Inode: st.Ino,
			Time: time.Unix(st.Mtim.Sec, st.Mtim.Nsec).UTC(), Xattrs: xattrs(t, path),
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f.Data, f.Size = string(b), st.Size
		case unix.S_IFLNK:
			f.Size = st.Size
			if f.Target, err = os.Readlink(path); err != nil {
				return err
			}
		case unix.S_IFCHR, unix.S_IFBLK:
			f.Device = st.Rdev
		}
		files[filepath.Join("/", strings.TrimPrefix(path, root))] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func xattrs(t *testing.T, path string) map[string]string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return nil
	}
	list := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatalf("%s: %s: %v", path, name, err)
		}
		list[name] = string(value[:n])
	}
	return list
}

func mode(f m, bits int64) m {
	f.Mode = bits
	return f
}

// everything has one of each thing a layer can hold. Devices and strange owners
// are root's to unpack.
func everything() []m {
	long := strings.Repeat("n", 255)
	list := []m{
		mode(folder("./"), 0o755), folder("d"), file("d/file", "1"), file("d/hard1", "content"), link("d/hard2", "d/hard1"), link("hard0", "d/hard2"),
		mode(file("setuid", "s"), 0o4755), mode(file("setgid", "s"), 0o2711), mode(folder("d/sticky"), 0o1777), mode(file("none", ""), 0o400),
		symlink("rel", "d/file"), symlink("abs", "/"+strings.Repeat("x/", 100)), symlink("dangling", "no/where"), symlink("fifty-nine", strings.Repeat("5", 59)), symlink("sixty", strings.Repeat("6", 60)),
		file("removed/a", "1"), file("removed/b/c", "1"), file("becomes-link", "1"), file("becomes-folder", "1"), file("becomes-file/x/y", "1"),
		file("gone/x", "1"), file("hard-up2", "1"),
		folder("usr/lib"), file("usr/lib/from-lib", "1"), symlink("lib", "usr/lib"),
		file(strings.Repeat("p/", 120)+long, "deep"), file("dîr/ünïcode \n'\"\\", "ü"), file("bytes/\xff\xfe", "b"),
		file("big", strings.Repeat("0123456789abcdef", 1<<16)), file("zeros", strings.Repeat("\x00", 1<<20)+"end"),
		{Header: h{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600, ModTime: then, Format: tar.FormatPAX}},
		at(file("old", "1"), time.Unix(-1000, 5000)), at(file("new", "1"), time.Unix(5_000_000_000, 999_999_999)),
	}
	if os.Getuid() != 0 {
		return list
	}
	x := file("attributes", "x")
	x.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": capNetRaw, "SCHILY.xattr.user.one": "1", "SCHILY.xattr.user.two": strings.Repeat("v", 2000),
		"SCHILY.xattr.user.three": "abc",
	}
	own := file("owned", "o")
	own.Uid, own.Gid = 4_000_000_000, 70_000
	dir := folder("attributes.d")
	dir.PAXRecords = map[string]string{"SCHILY.xattr.user.dir": "d"}
	return append(list, x, own, dir,
		m{Header: h{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: then, Format: tar.FormatPAX}},
		m{Header: h{Typeflag: tar.TypeBlock, Name: "dev/sda300", Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 300, ModTime: then, Format: tar.FormatPAX}},
	)
}

func at(f m, when time.Time) m {
	f.ModTime = when
	return f
}

// sparseFile makes a file with holes.
func sparseFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(40) {
		if _, err := f.WriteAt(fmt.Appendf(nil, "data %d", i), i*123_457); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(10_000_001); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// sparseTar is GNU tar's archive of a file, with its holes; Go writes none.
func sparseTar(t *testing.T, format, path string) layerstest.Source {
	return func(w io.Writer) error {
		cmd := exec.CommandContext(t.Context(), "tar", "-C", filepath.Dir(path), "-c", "-S", "--format", format, filepath.Base(path))
		cmd.Stdout = w
		return cmd.Run()
	}
}

// Both of GNU's forms of sparse files, one of which umoci does not know, keep
// their content, and holes cost no disk.
func TestSparseFiles(t *testing.T) {
	t.Parallel()
	path := sparseFile(t)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "pax"} {
		var b bytes.Buffer
		if err := sparseTar(t, format, path)(&b); err != nil {
			t.Fatal(err)
		}
		fs, err := write(t, []Layer{layer(format, b.Bytes())}, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, fs)["/sparse"]; got.Data != string(want) {
			t.Errorf("%s: %d bytes, not the same %d", format, len(got.Data), len(want))
		}
		fsck(t, fs)
		var st syscall.Stat_t
		if err := syscall.Stat(fs, &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes of disk", format, st.Blocks*512)
		}
		// What a sparse file claims counts, though the layer is small.
		if _, err := write(t, []Layer{layer(format, b.Bytes())}, Limits{Bytes: 5 << 20}); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: beyond the limit: %v", format, err)
		}
	}
}

// A hole may be long, and is in no source that would end with the context.
func TestCancelledInAHole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hole")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8<<30); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := sparseTar(t, "gnu", path)(&b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := Layer{Name: "hole", Open: func() (io.ReadCloser, error) {
		return struct {
			io.Reader
			closing
		}{&b, closing(cancel)}, nil
	}}
	_, err := Write(ctx, filepath.Join(t.TempDir(), "x"), ext4.UUID("x"), []Layer{l}, Limits{}, nil)
	if api.KindOf(err) != api.KindCancelled {
		t.Errorf("got %v", err)
	}
}

// closing is done when a source is read.
type closing func()

func (c closing) Close() error { c(); return nil }

// randomStack is a few layers of few names, so that they meet: what a builder
// could have made, with parents of their own layer before them.
func randomStack(seed uint64) []layerstest.Source {
	r := rand.New(rand.NewPCG(seed, 3))
	there := map[string]byte{} // of all layers so far, roughly
	var sources []layerstest.Source
	for range 2 + r.IntN(4) {
		var members []m
		mine := map[string]bool{}
		for range 3 + r.IntN(12) {
			parts := []string{"a", "b", "c"}
			name := parts[r.IntN(3)]
			for range r.IntN(3) {
				if !mine[name+"/"] {
					if mine[name] {
						break
					}
					members = append(members, folder(name))
					there[name], mine[name+"/"] = tar.TypeDir, true
				}
				name += "/" + parts[r.IntN(3)]
			}
			if mine[name] || mine[name+"/"] {
				continue
			}
			mine[name] = true
			switch r.IntN(6) {
			case 0:
				members = append(members, symlink(name, parts[r.IntN(3)]))
				there[name] = tar.TypeSymlink
			case 1, 2:
				if dir, base := filepath.Split(name); !mine[name+"/"] {
					members = append(members, file(dir+".wh."+base, ""))
				}
			case 3:
				members = append(members, folder(name))
				mine[name+"/"], there[name] = true, tar.TypeDir
				if r.IntN(2) == 0 {
					members = append(members, file(name+"/.wh..wh..opq", ""))
				}
			default:
				members = append(members, file(name, fmt.Sprint(len(sources), name)))
				there[name] = tar.TypeReg
				if r.IntN(3) == 0 {
					members = append(members, link("link"+fmt.Sprint(len(sources), len(members)), name))
				}
			}
		}
		sources = append(sources, layerstest.Tar(members...))
	}
	return sources
}

package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layers/layerstest"
)

type (
	m = layerstest.Member
	h = tar.Header
)

var then = time.Date(2024, 2, 29, 12, 30, 15, 123456789, time.UTC)

func file(name, data string) m {
	return m{Header: h{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: then, Format: tar.FormatPAX}, Data: data}
}

func folder(name string) m {
	return m{Header: h{Typeflag: tar.TypeDir, Name: name, Mode: 0o750, ModTime: then, Format: tar.FormatPAX}}
}

func symlink(name, target string) m {
	return m{Header: h{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, ModTime: then, Format: tar.FormatPAX}}
}

func link(name, target string) m {
	return m{Header: h{Typeflag: tar.TypeLink, Name: name, Linkname: target, ModTime: then, Format: tar.FormatPAX}}
}

// layer is an uncompressed layer of the bytes.
func layer(name string, b []byte) Layer {
	sum := sha256.Sum256(b)
	return Layer{
		Name: name, DiffID: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	}
}

func stack(t testing.TB, members ...[]m) []Layer {
	t.Helper()
	var list []Layer
	for i, l := range members {
		var b bytes.Buffer
		if err := layerstest.Tar(l...)(&b); err != nil {
			t.Fatal(err)
		}
		list = append(list, layer(fmt.Sprintf("layer%d", i), b.Bytes()))
	}
	return list
}

// write makes a file system and gives its path. On errors nothing may be left.
func write(t testing.TB, layers []Layer, limits Limits) (string, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "fs.ext4")
	_, err := Write(t.Context(), path, ext4.UUID("test"), layers, limits, nil)
	if err != nil {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	return path, err
}

func read(t testing.TB, path string) map[string]layerstest.File {
	t.Helper()
	files, err := layerstest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	delete(files, "/lost+found")
	return files
}

// listing is a tree in words: folders end in a slash, files have their content,
// names of one file its first name.
func listing(files map[string]layerstest.File) map[string]string {
	list := map[string]string{}
	first := map[uint64]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		switch f.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			list[name] = "/"
		case unix.S_IFLNK:
			list[name] = "-> " + f.Target
		case unix.S_IFREG:
			list[name] = "= " + f.Data
		default:
			list[name] = fmt.Sprintf("%o", f.Mode)
		}
		if was, ok := first[f.Inode]; ok {
			list[name] = "as " + was
		} else {
			first[f.Inode] = name
		}
	}
	delete(list, "/")
	return list
}

func fsck(t testing.TB, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "e2fsck", "-fn", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "? no") || strings.Contains(string(out), "WARNING") {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	type tree = map[string]string
	deep := strings.Repeat("d/", 100)
	for name, c := range map[string]struct {
		layers [][]m
		want   tree
	}{
		"none": {nil, tree{}},
		"file replaced": {
			[][]m{{file("a", "1"), file("b", "1")}, {file("a", "2")}},
			tree{"/a": "= 2", "/b": "= 1"},
		},
		"whiteout": {
			[][]m{{file("d/a", "1"), file("d/b", "1")}, {file("d/.wh.a", "")}},
			tree{"/d": "/", "/d/b": "= 1"},
		},
		"whiteout of a folder": {
			[][]m{{file("d/e/a", "1"), file("d/f", "1")}, {file("d/.wh.e", "")}},
			tree{"/d": "/", "/d/f": "= 1"},
		},
		"whiteout of nothing there": {
			[][]m{{file("a", "1")}, {file(".wh.b", ""), file("x/y/.wh.c", ""), file("a/.wh.c", "")}},
			tree{"/a": "= 1"},
		},
		"whiteout hides nothing of its own layer": {
			[][]m{{file("d/a", "1")}, {file("d/a", "2"), file("d/.wh.a", "")}, {file("b", "3")}, {file(".wh.b", ""), file("b", "4")}},
			tree{"/d": "/", "/d/a": "= 2", "/b": "= 4"},
		},
		"whiteout of a folder its layer adds to": {
			[][]m{{file("d/a", "1"), file("d/e/b", "1")}, {file("d/e/c", "2"), file(".wh.d", "")}},
			tree{"/d": "/", "/d/e": "/", "/d/e/c": "= 2"},
		},
		"opaque after its own members": {
			[][]m{{file("d/a", "1"), file("d/e/b", "1")}, {file("d/c", "2"), file("d/e/x", "2"), file("d/.wh..wh..opq", "")}},
			tree{"/d": "/", "/d/c": "= 2", "/d/e": "/", "/d/e/x": "= 2"},
		},
		"opaque before": {
			[][]m{{file("d/a", "1")}, {folder("d"), file("d/.wh..wh..opq", ""), file("d/b", "2")}},
			tree{"/d": "/", "/d/b": "= 2"},
		},
		"opaque root": {
			[][]m{{file("a", "1"), file("d/b", "1")}, {file(".wh..wh..opq", ""), file("c", "2")}},
			tree{"/c": "= 2"},
		},
		"file becomes a folder, a folder a file": {
			[][]m{{file("a", "1"), file("d/x/y", "1")}, {folder("a"), file("a/b", "2"), file("d", "2")}},
			tree{"/a": "/", "/a/b": "= 2", "/d": "= 2"},
		},
		"folder becomes a link": {
			[][]m{{file("d/a", "1"), file("e/b", "1")}, {symlink("d", "e"), file("d/c", "2")}},
			tree{"/d": "-> e", "/e": "/", "/e/b": "= 1", "/e/c": "= 2"},
		},
		"link becomes a folder": {
			[][]m{{file("usr/lib/a", "1"), symlink("lib", "usr/lib")}, {folder("lib"), file("lib/b", "2")}},
			tree{"/usr": "/", "/usr/lib": "/", "/usr/lib/a": "= 1", "/lib": "/", "/lib/b": "= 2"},
		},
		"through a link of a lower layer": {
			[][]m{{file("usr/lib/a", "1"), symlink("lib", "usr/lib")}, {file("lib/b", "2"), file("lib/.wh.a", "")}},
			tree{"/usr": "/", "/usr/lib": "/", "/usr/lib/b": "= 2", "/lib": "-> usr/lib"},
		},
		"through a link that leads out": {
			[][]m{{symlink("l", "../../../etc"), symlink("m", "/../srv")}, {file("l/passwd", "2"), file("m/x", "2")}},
			tree{"/l": "-> ../../../etc", "/m": "-> /../srv", "/etc": "/", "/etc/passwd": "= 2", "/srv": "/", "/srv/x": "= 2"},
		},
		"through a link to nothing": {
			[][]m{{symlink("run", "/var/run")}, {file("run/x", "2")}},
			tree{"/run": "-> /var/run", "/var": "/", "/var/run": "/", "/var/run/x": "= 2"},
		},
		"paths that climb": {
			[][]m{{file("../../x", "1"), file("/abs", "1"), file("a/../../b", "1"), file("./c/./d", "1")}},
			tree{"/x": "= 1", "/abs": "= 1", "/b": "= 1", "/c": "/", "/c/d": "= 1"},
		},
		"twice in one layer": {
			[][]m{{file("a", "1"), file("a", "22"), folder("d"), folder("d"), symlink("l", "a"), file("l", "3")}},
			tree{"/a": "= 22", "/d": "/", "/l": "= 3"},
		},
		"hard link to a lower file that goes later": {
			[][]m{{file("a", "1"), file("c", "1")}, {link("b", "a"), link("d/e", "/c")}, {file(".wh.a", ""), file("c", "3")}},
			tree{"/b": "= 1", "/c": "= 3", "/d": "/", "/d/e": "= 1"},
		},
		"hard link whose target its own layer replaces": {
			[][]m{{file("a", "1")}, {link("b", "a"), file("a", "2")}},
			tree{"/a": "= 2", "/b": "= 1"},
		},
		"hard links of one file": {
			[][]m{{file("a", "1"), link("b", "a"), link("c", "./b")}, {link("b", "a"), symlink("s", "x"), link("s2", "s")}},
			tree{"/a": "= 1", "/b": "as /a", "/c": "as /a", "/s": "-> x", "/s2": "as /s"},
		},
		"hard link through a symbolic one": {
			[][]m{{file("usr/a", "1"), symlink("u", "usr"), link("b", "u/a")}},
			tree{"/b": "= 1", "/u": "-> usr", "/usr": "/", "/usr/a": "as /b"},
		},
		"names of AUFS": {
			[][]m{{file(".wh..wh.plnk/12.3", "1"), link("a", ".wh..wh.plnk/12.3"), file(".wh..wh.aufs", "")}},
			tree{"/a": "= 1"},
		},
		"deep": {
			[][]m{{file(deep+"a", "1")}, {file(deep+".wh.a", ""), file("x", "")}, {file(".wh.d", "")}},
			tree{"/x": "= "},
		},
		"no empty names": {
			[][]m{{folder("./"), folder("/"), file("a//b", "1")}},
			tree{"/a": "/", "/a/b": "= 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, err := write(t, stack(t, c.layers...), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, listing(read(t, path))); d != "" {
				t.Error(d)
			}
			fsck(t, path)
		})
	}
}

func TestCompressions(t *testing.T) {
	t.Parallel()
	plain := stack(t, []m{file("a", strings.Repeat("hello ", 1000))})[0]
	rc, err := plain.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	var gz bytes.Buffer
	for _, part := range [][]byte{b[:700], b[700:]} { // estargz is many members
		w := gzip.NewWriter(&gz)
		_, _ = w.Write(part)
		_ = w.Close()
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zst := enc.EncodeAll(b, []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip")) // as zstd:chunked has
	for name, blob := range map[string][]byte{"plain": b, "gzip": gz.Bytes(), "zstd": zst} {
		l := layer(name, blob)
		l.DiffID = plain.DiffID
		path, err := write(t, []Layer{l}, Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(map[string]string{"/a": "= " + strings.Repeat("hello ", 1000)}, listing(read(t, path))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestHostileLayers(t *testing.T) {
	t.Parallel()
	raw := func(hs ...h) []Layer {
		var b bytes.Buffer
		for _, x := range hs {
			tw := tar.NewWriter(&b)
			if err := tw.WriteHeader(&x); err != nil {
				t.Fatal(err)
			}
		}
		return []Layer{layer("bad", append(b.Bytes(), make([]byte, 1024)...))}
	}
	patched := func(edit func(header []byte)) []Layer {
		var b bytes.Buffer
		if err := layerstest.Tar(m{Header: h{Typeflag: tar.TypeReg, Name: "x", Mode: 0o644, Format: tar.FormatGNU}, Data: "data"})(&b); err != nil {
			t.Fatal(err)
		}
		header := b.Bytes()[:512]
		edit(header)
		copy(header[148:], "        ")
		sum := 0
		for _, c := range header {
			sum += int(c)
		}
		copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
		return []Layer{layer("bad", b.Bytes())}
	}
	var bomb bytes.Buffer
	w, err := zstd.NewWriter(&bomb)
	if err != nil {
		t.Fatal(err)
	}
	if err := layerstest.Tar(file("x", strings.Repeat("bomb", 8<<20)))(w); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	many := make([]m, 50)
	for i := range many {
		many[i] = file(fmt.Sprintf("f%d", i), "")
	}
	// Each hidden name leads through links that make a path of 160 KB, and ends there.
	var tangled []m
	for i := range 38 {
		tangled = append(tangled, symlink(fmt.Sprint("s", i), fmt.Sprint("s", i+1, strings.Repeat("/x", 2000))))
	}
	for range 60 {
		tangled = append(tangled, file("s0/.wh.x", ""))
	}
	xattr := func(k, v string) m {
		x := file("x", "")
		x.PAXRecords = map[string]string{"SCHILY.xattr." + k: v}
		return x
	}
	whole := stack(t, []m{file("x", strings.Repeat("x", 5000))})[0]
	rc, _ := whole.Open()
	wholeBytes, _ := io.ReadAll(rc)
	wrong := whole
	wrong.DiffID = "sha256:00"
	for name, c := range map[string]struct {
		layers []Layer
		limits Limits
		want   string // in the error
	}{
		"links in circles":            {stack(t, []m{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}), Limits{}, `"a/x": symbolic links on the way`},
		"below a file":                {stack(t, []m{file("a", "")}, []m{file("a/x", "")}), Limits{}, `layer1: member "a/x": it lies in what is no folder`},
		"hard link to nothing":        {stack(t, []m{link("a", "b")}), Limits{}, `"a": hard link to "b", which is not there`},
		"hard link to a hidden file":  {stack(t, []m{file("b", "")}, []m{file(".wh.b", "")}, []m{link("a", "b")}), Limits{}, `layer2: member "a": hard link to "b", which is not there`},
		"hard link to a folder":       {stack(t, []m{folder("d"), link("a", "d")}), Limits{}, `hard link to "d", which is a folder`},
		"hard link to the root":       {stack(t, []m{link("a", "/")}), Limits{}, `which is a folder`},
		"hard link as the root":       {stack(t, []m{file("b", ""), link("/", "b")}), Limits{}, `root is no folder`},
		"hard links to each other":    {stack(t, []m{link("a", "b"), link("b", "a")}), Limits{}, `"a": hard link to "b", which is not there`},
		"hard link replaces its home": {stack(t, []m{file("d/x", ""), link("d", "d/x")}), Limits{}, `"d": hard link to "d/x", which is not there`},
		"root is a file":              {stack(t, []m{file(".", "")}), Limits{}, `root is no folder`},
		"long name":                   {stack(t, []m{file(strings.Repeat("n", 256), "")}), Limits{}, `is not valid`},
		"long path":                   {stack(t, []m{folder(strings.Repeat("n/", 2100))}), Limits{}, `path is longer than 4096 bytes`},
		"long link":                   {stack(t, []m{symlink("l", strings.Repeat("n", 4096))}), Limits{}, `target is not valid`},
		"deeper than any path":        {stack(t, []m{folder(strings.Repeat("d/", 1500)), symlink("s", strings.Repeat("d/", 1500)), folder("s/" + strings.Repeat("d/", 1500))}), Limits{}, `more than 2048 folders deep`},
		"whiteout of nothing":         {stack(t, []m{file("d/.wh.", "")}), Limits{}, `"d/.wh.": whiteout of nothing`},
		"whiteout of the parent":      {stack(t, []m{file("d/.wh...", "")}), Limits{}, `whiteout of nothing`},
		"unknown type":                {raw(h{Typeflag: 'Z', Name: "x"}), Limits{}, `"x": type 'Z' is unknown`},
		"device out of range":         {raw(h{Typeflag: tar.TypeChar, Name: "x", Devmajor: 5000}), Limits{}, `device 5000:0`},
		"owner out of range":          {raw(h{Typeflag: tar.TypeDir, Name: "x", Uid: 1 << 40, Format: tar.FormatPAX}), Limits{}, `owner 1099511627776:0 is out of range`},
		"negative size":               {patched(func(b []byte) { copy(b[124:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }), Limits{}, `invalid tar header`},
		"huge size":                   {patched(func(b []byte) { copy(b[124:], "77777777777\x00") }), Limits{Bytes: 1 << 30}, `"x": it has 8589934591 bytes`},
		"size beyond the end":         {patched(func(b []byte) { copy(b[124:], "00000100000\x00") }), Limits{}, `cut short`},
		"large attribute":             {stack(t, []m{xattr("user.x", strings.Repeat("v", 5000))}), Limits{}, `"user.x": 5000 bytes are more`},
		"malformed access list":       {stack(t, []m{xattr("system.posix_acl_access", "?")}), Limits{}, `access list is malformed`},
		"many members":                {stack(t, many), Limits{Entries: 30}, `more than 30 members`},
		"many folders":                {stack(t, []m{file(strings.Repeat("d/", 40)+"x", "")}), Limits{Entries: 30}, `more than 30 members and folders`},
		"many layers":                 {stack(t, nil, nil, nil), Limits{Layers: 2}, `3 layers, more than 2`},
		"many names":                  {stack(t, many), Limits{Names: 100}, `longer than 100 bytes together`},
		"names of missing folders":    {stack(t, []m{file(strings.Repeat("folder/", 40)+"x", "")}), Limits{Names: 200}, `longer than 200 bytes together`},
		"tangled links":               {stack(t, tangled), Limits{Entries: 100}, `too tangled`},
		"bytes of all layers":         {stack(t, []m{file("a", strings.Repeat("a", 600_000))}, []m{file("a", strings.Repeat("a", 600_000))}), Limits{Bytes: 1 << 20}, `more than 1048576`},
		"bomb":                        {[]Layer{{Name: "bad", Open: layer("", bomb.Bytes()).Open}}, Limits{Content: 1 << 20}, `decompression bomb`},
		"no archive":                  {[]Layer{layer("bad", []byte(strings.Repeat("not a tar ", 200)))}, Limits{}, `bad: archive/tar`},
		"xz":                          {[]Layer{layer("bad", []byte("\xfd7zXZ\x00"))}, Limits{}, `compressed with xz`},
		"corrupt gzip":                {[]Layer{layer("bad", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00garbage"))}, Limits{}, `bad: `},
		"cut short":                   {[]Layer{layer("bad", wholeBytes[:3000])}, Limits{}, `cut short`},
		"wrong digest":                {[]Layer{wrong}, Limits{}, `but the image's config says sha256:00`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := write(t, c.layers, c.limits)
			if err == nil {
				t.Fatal("it was taken")
			}
			if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", api.KindOf(err), err)
			}
		})
	}
}

// A layer whose source fails keeps the source's error, and so does a cancelled
// build.
func TestErrorsOfTheSource(t *testing.T) {
	t.Parallel()
	gone := api.Errorf(api.KindUnavailable, "registry is gone")
	good := stack(t, []m{file("a", "1")})[0]
	whole := stack(t, []m{file("x", strings.Repeat("x", 5000))})[0]
	for name, open := range map[string]func() (io.ReadCloser, error){
		"open": func() (io.ReadCloser, error) { return nil, gone },
		"read": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("\x1f\x8b"), failing{gone})), nil
		},
		// Only at its end a source knows that it gave damaged bytes.
		"damaged gzip": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("\x1f\x8b\x08"+strings.Repeat("garbage", 1<<18)), failing{gone})), nil
		},
		"damaged archive": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("garbage", 4<<20)), failing{gone})), nil
		},
		"damaged xz": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("\xfd7zXZ\x00"), failing{gone})), nil
		},
		"cut short in a file": func() (io.ReadCloser, error) {
			rc, err := whole.Open()
			return io.NopCloser(io.MultiReader(io.LimitReader(rc, 3000), failing{fmt.Errorf("%w: %w", gone, io.ErrUnexpectedEOF)})), err
		},
	} {
		_, err := write(t, []Layer{good, {Name: "l", Open: open}}, Limits{})
		if !errors.Is(err, gone) || api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), "layer l") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	stalled := Layer{Name: "l", Open: func() (io.ReadCloser, error) {
		cancel()
		return io.NopCloser(failing{io.ErrNoProgress}), nil
	}}
	_, err := Write(ctx, filepath.Join(dir, "x"), [16]byte{}, []Layer{good, stalled}, Limits{}, nil)
	if api.KindOf(err) != api.KindCancelled {
		t.Errorf("cancelled: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A full disk is no-space, says where, and leaves nothing.
func TestFullDiskOfLayers(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ls := stack(t, []m{file("a", strings.Repeat("a", 2<<20))}, []m{file("b", strings.Repeat("b", 30<<20))})
	_, err := Write(t.Context(), filepath.Join(dir, "x"), [16]byte{}, ls, Limits{}, nil)
	if api.KindOf(err) != api.KindNoSpace || !strings.Contains(err.Error(), dir) {
		t.Errorf("%s: %v", api.KindOf(err), err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestProgressAndStats(t *testing.T) {
	t.Parallel()
	ls := stack(t, []m{file("a", "1"), file("b", "1")}, []m{file(".wh.a", "")})
	var done, total int64
	stats, err := Write(t.Context(), filepath.Join(t.TempDir(), "x"), [16]byte{}, ls, Limits{}, func(d, all int64) { done, total = d, all })
	if err != nil {
		t.Fatal(err)
	}
	want := ls[0].Size + ls[1].Size
	if done != want || total != want || stats.Compressed != want || stats.Uncompressed != want || stats.Members != 3 || stats.Removed != 1 {
		t.Errorf("%d of %d, want %d; %+v", done, total, want, stats)
	}
}

func TestID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, in := range [][]string{{"{}", "a", "b"}, {"{}", "b", "a"}, {"{ }", "a", "b"}, {"{}", "ab"}, {"{}"}, {"{}", "a", "b", ""}} {
		id, err := ID([]byte(in[0]), in[1:])
		if err != nil || seen[id] || !strings.HasPrefix(id, "sha256:") || len(id) != 71 {
			t.Errorf("%q: %s %v", in, id, err)
		}
		seen[id] = true
		if again, _ := ID([]byte(in[0]), in[1:]); again != id {
			t.Errorf("%q: %s, then %s", in, id, again)
		}
	}
}

// What would steer the guest's own overlay does not come from a layer.
func TestAttributesOfTheOverlayStayOut(t *testing.T) {
	t.Parallel()
	hostile := folder("etc")
	hostile.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.harmless": "v"}
	path := filepath.Join(t.TempDir(), "x")
	if _, err := Write(t.Context(), path, [16]byte{}, stack(t, []m{hostile}), Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Names of attributes lie in the file system without their prefix.
	if bytes.Contains(b, []byte("overlay.opaque")) || !bytes.Contains(b, []byte("harmless")) {
		t.Error("the attributes are not those of a layer without the overlay's")
	}
}

package host

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/host/hosttest"
)

// xfs is the folder of an empty XFS of that size.
func xfs(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	hosttest.XFS(t, dir, size)
	return dir
}

// image makes an image as pulls do, with one file of so many bytes in it.
func image(t *testing.T, path string, content []byte) {
	t.Helper()
	err := ext4.Build(path, [16]byte{1}, func(b *ext4.Builder) error {
		f, err := b.File(ext4.Attr{Mode: syscall.S_IFREG | 0o644}, int64(len(content)), bytes.NewReader(content))
		if err != nil {
			return err
		}
		return b.Put(ext4.Root, "note", ext4.Entry{Node: f})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCloneOfAnImage(t *testing.T) {
	t.Parallel()
	h, ctx := tooled(t), t.Context()
	dir := xfs(t, 1<<30)
	from, to := filepath.Join(dir, "image"), filepath.Join(dir, "root")
	content := bytes.Repeat([]byte("banger\n"), 9<<20)
	image(t, from, content)
	before, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.CanClone(from, dir); err != nil {
		t.Fatal(err)
	}
	free := freeBytes(t, dir)
	if err := h.CloneExt4(ctx, from, to, 8<<30); err != nil {
		t.Fatal(err)
	}
	if took := free - freeBytes(t, dir); took > 4<<20 {
		t.Errorf("a clone of %d bytes of image took %d", len(before), took)
	}
	tool(t, h, "e2fsck", "-fn", to)
	if s, err := readSuper(to); err != nil || s.size != 8<<30 || !s.journal || s.readOnly {
		t.Errorf("%+v, %v", s, err)
	}

	// It is a disk like any other: written to, and grown.
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", to, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	err = os.WriteFile(filepath.Join(at, "new"), []byte("written"), 0o644)
	kept, err2 := os.ReadFile(filepath.Join(at, "note"))
	if err := errors.Join(err, err2, syscall.Unmount(at, 0)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, content) {
		t.Error("the image's file is not as it was")
	}
	if err := h.GrowExt4(ctx, to, 9<<30); err != nil {
		t.Fatal(err)
	}
	tool(t, h, "e2fsck", "-fn", to)
	if s, err := readSuper(to); err != nil || s.size != 9<<30 {
		t.Errorf("%+v, %v", s, err)
	}
	if got := tool(t, h, "debugfs", "-R", "cat new", to); !strings.HasSuffix(got, "written") {
		t.Errorf("the file is %q", got)
	}
	if after, err := os.ReadFile(from); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the image was changed, %v", err)
	}
	// Deleted, it gives its room back.
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	syscall.Sync()
	if took := free - freeBytes(t, dir); took > 1<<20 {
		t.Errorf("%d bytes are still taken", took)
	}
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	syscall.Sync()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// A disk that is its own already is left alone; one that was cut off goes on.
func TestOwnExt4GoesOn(t *testing.T) {
	t.Parallel()
	h, ctx := tooled(t), t.Context()
	path := filepath.Join(t.TempDir(), "disk")
	image(t, path, []byte("kept"))
	tool(t, h, "tune2fs", "-O", "^read-only", path) // as far as it came
	if err := os.Truncate(path, 256<<20); err != nil {
		t.Fatal(err)
	}
	if err := h.OwnExt4(ctx, path, 256<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, h, "e2fsck", "-fn", path)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.OwnExt4(ctx, path, 256<<20); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("it was written to again: %v", err)
	}
	if err := os.Truncate(path, 512<<20); err != nil {
		t.Fatal(err)
	}
	if err := h.OwnExt4(ctx, path, 512<<20); err != nil {
		t.Fatal(err)
	}
	if s, err := readSuper(path); err != nil || s.size != 512<<20 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestCloneThatCannotBe(t *testing.T) {
	t.Parallel()
	h, ctx := tooled(t), t.Context()
	dir := xfs(t, 320<<20)
	from := filepath.Join(dir, "image")
	image(t, from, []byte("note"))
	none := filepath.Join(dir, "none")
	if err := os.WriteFile(none, bytes.Repeat([]byte("no file system "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	elsewhere := t.TempDir()
	for name, tc := range map[string]struct {
		do   func() error
		kind api.Kind
		said string
	}{
		"another file system": {func() error { return h.CloneExt4(ctx, from, filepath.Join(elsewhere, "root"), 1<<30) }, api.KindUnsupported, "another file system"},
		"tried there":         {func() error { return h.CanClone(from, elsewhere) }, api.KindUnsupported, "another file system"},
		"no reflink":          {func() error { return h.CanClone("/proc/version", dir) }, api.KindUnsupported, ""},
		"too small":           {func() error { return h.CloneExt4(ctx, from, dir+"/root", 4096) }, api.KindInvalid, "the image has"},
		"no image":            {func() error { return h.CloneExt4(ctx, dir+"/no", dir+"/root", 1<<30) }, api.KindNotFound, ""},
		"no ext4":             {func() error { return h.CloneExt4(ctx, none, dir+"/root", 1<<30) }, api.KindInvalid, "no ext4"},
		"there already":       {func() error { return h.CloneExt4(ctx, from, none, 1<<30) }, api.KindExists, ""},
		"cancelled":           {func() error { return h.CloneExt4(cancelled, from, dir+"/root", 1<<30) }, api.KindCancelled, ""},
	} {
		err := tc.do()
		if api.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.said) {
			t.Errorf("%s: kind %s, want %s: %v", name, api.KindOf(err), tc.kind, err)
		}
	}
	if _, err := os.Lstat(dir + "/root"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was left: %v", err)
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 0 {
		t.Errorf("%v are left, %v", entries, err)
	}
	// A full disk: the clone takes nothing, the file system in it a little.
	hosttest.Fill(t, dir)
	if err := h.CloneExt4(ctx, from, dir+"/root", 8<<30); api.KindOf(err) != api.KindNoSpace || api.AsError(err).Hint == "" {
		t.Errorf("a full disk: kind %s: %v", api.KindOf(err), err)
	}
	if _, err := os.Lstat(dir + "/root"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was left: %v", err)
	}
}

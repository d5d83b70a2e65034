package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// tooled is the real host, where e2fsprogs are there.
func tooled(t testing.TB) *Real {
	t.Helper()
	h := New(os.Getenv)
	for _, tool := range []string{"mke2fs", "e2fsck", "resize2fs", "tune2fs", "dumpe2fs", "debugfs"} {
		if err := h.LookTool(tool); err != nil {
			t.Skip(err)
		}
	}
	return h
}

func tool(t testing.TB, h *Real, name string, args ...string) string {
	t.Helper()
	path, err := h.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func onDisk(t testing.TB, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}

func superblock(t *testing.T, h *Real, path string) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for line := range strings.Lines(tool(t, h, "dumpe2fs", "-h", path)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			fields[k] = strings.TrimSpace(v)
		}
	}
	return fields
}

func TestMakeAndGrowExt4(t *testing.T) {
	t.Parallel()
	h, ctx := tooled(t), t.Context()
	for name, tc := range map[string]struct{ size, grown int64 }{
		"the smallest":   {MinExt4, 64 << 20},
		"as usual":       {8 << 30, 20 << 30},
		"an odd size":    {1<<30 + 12345, 2<<30 + 1},
		"half a percent": {8 << 30, 8<<30 + 40<<20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.ext4")
			if err := h.MakeExt4(ctx, path, tc.size); err != nil {
				t.Fatal(err)
			}
			tool(t, h, "e2fsck", "-fn", path)
			fi, err := os.Stat(path)
			if err != nil || fi.Size() < tc.size || fi.Size()%sector != 0 || fi.Mode().Perm() != 0o600 {
				t.Errorf("%d %v %v", fi.Size(), fi.Mode(), err)
			}
			if n := onDisk(t, path); n > 8<<20 {
				t.Errorf("%d bytes on the disk", n)
			}
			sb := superblock(t, h, path)
			for _, f := range []string{"has_journal", "extent", "metadata_csum"} {
				if !strings.Contains(sb["Filesystem features"], f) {
					t.Errorf("no %s in %q", f, sb["Filesystem features"])
				}
			}
			if sb["Reserved block count"] != "0" {
				t.Errorf("%s blocks reserved", sb["Reserved block count"])
			}
			if stat := tool(t, h, "debugfs", "-R", "stat <2>", path); !strings.Contains(stat, "User:     0   Group:     0") {
				t.Errorf("the root folder is not root's: %s", stat)
			}
			note := filepath.Join(t.TempDir(), "note")
			if err := os.WriteFile(note, []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			tool(t, h, "debugfs", "-w", "-R", "write "+note+" note", path)

			for range 2 { // the second time there is nothing to do
				if err := h.GrowExt4(ctx, path, tc.grown); err != nil {
					t.Fatal(err)
				}
			}
			tool(t, h, "e2fsck", "-fn", path)
			if got := tool(t, h, "debugfs", "-R", "cat note", path); !strings.HasSuffix(got, "kept") {
				t.Errorf("the file is %q", got)
			}
			grown := superblock(t, h, path)
			if grown["Block count"] == sb["Block count"] || grown["Reserved block count"] != "0" {
				t.Errorf("%s blocks, before %s, %s reserved", grown["Block count"], sb["Block count"], grown["Reserved block count"])
			}
			if err := h.GrowExt4(ctx, path, tc.size); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "shrink") {
				t.Error(err)
			}
		})
	}
}

func TestGrowingGoesOnAfterBeingCutOff(t *testing.T) {
	t.Parallel()
	h := tooled(t)
	path := filepath.Join(t.TempDir(), "disk.ext4")
	if err := h.MakeExt4(t.Context(), path, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 128<<20); err != nil { // the file grew, the file system did not
		t.Fatal(err)
	}
	if err := h.GrowExt4(t.Context(), path, 128<<20); err != nil {
		t.Fatal(err)
	}
	if n := superblock(t, h, path)["Block count"]; n != "32768" {
		t.Errorf("%s blocks", n)
	}
}

// TestGrowingRepairsAnUncleanDisk is a machine that was killed: e2fsck then
// reports, by its code 1, that it mended something.
func TestGrowingRepairsAnUncleanDisk(t *testing.T) {
	t.Parallel()
	h := tooled(t)
	path := filepath.Join(t.TempDir(), "disk.ext4")
	if err := h.MakeExt4(t.Context(), path, 64<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, h, "debugfs", "-w", "-R", "set_inode_field <11> links_count 9", path)
	if err := h.GrowExt4(t.Context(), path, 96<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, h, "e2fsck", "-fn", path)
}

func TestExt4ThatCannotBe(t *testing.T) {
	t.Parallel()
	h, ctx := tooled(t), t.Context()
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	bare := New(func(string) string { return "" })
	for name, tc := range map[string]struct {
		do   func(path string) error
		kind api.Kind
	}{
		"too small":          {func(p string) error { return h.MakeExt4(ctx, p, MinExt4-1) }, api.KindInvalid},
		"negative":           {func(p string) error { return h.MakeExt4(ctx, p, -1) }, api.KindInvalid},
		"beyond all":         {func(p string) error { return h.MakeExt4(ctx, p, 1<<60) }, api.KindNoSpace},
		"is there":           {func(string) error { return h.MakeExt4(ctx, there, MinExt4) }, api.KindExists},
		"no folder":          {func(p string) error { return h.MakeExt4(ctx, p+"/no/disk", MinExt4) }, api.KindNotFound},
		"cancelled":          {func(p string) error { return h.MakeExt4(cancelled, p, MinExt4) }, api.KindCancelled},
		"grow nothing":       {func(p string) error { return h.GrowExt4(ctx, p, MinExt4) }, api.KindNotFound},
		"grow what is none":  {func(string) error { return h.GrowExt4(ctx, there, MinExt4) }, api.KindInternal},
		"sbin without PATH":  {func(string) error { return bare.LookTool("mke2fs") }, ""},
		"a tool not there":   {func(string) error { return h.LookTool("no-such-tool") }, api.KindUnavailable},
		"a package is named": {func(string) error { return New(os.Getenv).LookTool("/no/mmdebstrap") }, api.KindUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "disk")
			err := tc.do(path)
			if api.KindOf(err) != tc.kind {
				t.Errorf("kind %s, want %s: %v", api.KindOf(err), tc.kind, err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was left: %v", err)
			}
		})
	}
	if data, err := os.ReadFile(there); string(data) != "mine" || err != nil {
		t.Errorf("another's file is %q, %v", data, err)
	}
	if e := api.AsError(New(os.Getenv).LookTool("/no/mmdebstrap")); e.Hint != "sudo apt-get install -y mmdebstrap" {
		t.Errorf("%+v", e)
	}
}

func TestTools(t *testing.T) {
	t.Parallel()
	h := tooled(t)
	for _, name := range []string{"mke2fs", "e2fsck"} {
		got, err := h.Tool(t.Context(), name)
		if err != nil || !strings.HasPrefix(got.Version, "1.") || !filepath.IsAbs(got.Path) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := h.Tool(t.Context(), "resize2fs"); err != nil {
		t.Error(err)
	}
	silent := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(silent, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Tool(t.Context(), silent); api.KindOf(err) != api.KindUnavailable {
		t.Error(err)
	}
}

func BenchmarkMakeExt4(b *testing.B) {
	h := tooled(b)
	dir := b.TempDir()
	for b.Loop() {
		path := filepath.Join(dir, "disk")
		if err := h.MakeExt4(b.Context(), path, 8<<30); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(onDisk(b, path))/1024, "KiB")
		if err := os.Remove(path); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSignalReachesOneProcessOnly(t *testing.T) {
	t.Parallel()
	h := New(os.Getenv)
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	start, ok := h.ProcessStart(pid)
	if !ok || start == 0 {
		t.Fatal(start, ok)
	}
	if again, ok := h.ProcessStart(pid); !ok || again != start {
		t.Error(again, ok)
	}
	if err := h.Signal(pid, start+1, syscall.SIGKILL); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	if err := h.Signal(pid, start, syscall.Signal(0)); err != nil {
		t.Error(err)
	}
	if err := h.Signal(pid, start, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// Until it is waited for it is a zombie, which is no process.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, ok := h.ProcessStart(pid); !ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it lives on")
		}
	}
	if err := h.Signal(pid, start, syscall.SIGTERM); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	_ = cmd.Wait() // ended by the signal
	for _, p := range []int{pid, 0, -1, 1 << 30} {
		if _, ok := h.ProcessStart(p); ok {
			t.Errorf("%d is there", p)
		}
		if err := h.Signal(p, start, syscall.SIGTERM); api.KindOf(err) != api.KindNotFound {
			t.Errorf("%d: %v", p, err)
		}
	}
}

// A disk that was cut off says by its superblock what it was; one without a
// file system, or with nonsense for one, says nothing.
func TestExt4Size(t *testing.T) {
	t.Parallel()
	h := tooled(t)
	path := filepath.Join(t.TempDir(), "disk")
	if err := h.MakeExt4(t.Context(), path, 64<<20); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int64{32 << 20, 4096, 2048} {
		if err := os.Truncate(path, cut); err != nil {
			t.Fatal(err)
		}
		if n, err := h.Ext4Size(path); n != 64<<20 || err != nil {
			t.Errorf("cut at %d: %d %v", cut, n, err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff, 0xff}, 1024+0x18); err != nil {
		t.Fatal(err)
	}
	if n, err := h.Ext4Size(path); n != 0 || err != nil {
		t.Errorf("nonsense: %d %v", n, err)
	}
	for _, cut := range []int64{2047, 0} {
		if err := os.Truncate(path, cut); err != nil {
			t.Fatal(err)
		}
		if n, err := h.Ext4Size(path); n != 0 || err != nil {
			t.Errorf("cut at %d: %d %v", cut, n, err)
		}
	}
	if _, err := h.Ext4Size(t.TempDir()); err == nil {
		t.Error("a folder has a file system")
	}
}

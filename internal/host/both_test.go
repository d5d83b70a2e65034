package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bangervm/banger/api"
)

type both interface {
	CPUs() int
	MemoryTotal() (int64, error)
	MemoryAvailable() (int64, error)
	FreeDisk(dir string) (int64, error)
	LookTool(name string) error
	BootID() string
	MakeExt4(ctx context.Context, path string, bytes int64) error
	GrowExt4(ctx context.Context, path string, bytes int64) error
	Ext4Size(path string) (int64, error)
	CanClone(path, dir string) error
	CloneExt4(ctx context.Context, from, to string, bytes int64) error
	ProcessStart(pid int) (uint64, bool)
	Signal(pid int, start uint64, sig syscall.Signal) error
	RemoveGroup(name string) error
}

// TestRealAndFakeAgree runs the same sentences against both.
func TestRealAndFakeAgree(t *testing.T) {
	t.Parallel()
	real := tooled(t)
	start, _ := real.ProcessStart(os.Getpid())
	fake := NewFake()
	fake.AddProcess(os.Getpid(), start)
	fake.Missing["no-such-tool"] = true
	for name, h := range map[string]both{"real": real, "fake": fake} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			path := filepath.Join(t.TempDir(), "disk")
			if err := h.MakeExt4(ctx, path, 32<<20); err != nil {
				t.Fatal(err)
			}
			if err := h.MakeExt4(ctx, path, 32<<20); api.KindOf(err) != api.KindExists {
				t.Error(err)
			}
			if n, err := h.Ext4Size(path); n != 32<<20 || err != nil {
				t.Error(n, err)
			}
			if _, err := h.Ext4Size(path + "-none"); api.KindOf(err) != api.KindNotFound {
				t.Error(err)
			}
			if err := h.CanClone(path+"-none", t.TempDir()); api.KindOf(err) != api.KindNotFound {
				t.Error(err)
			}
			if err := h.CanClone(path, t.TempDir()); err != nil && api.KindOf(err) != api.KindUnsupported {
				t.Error(err)
			}
			if err := h.CloneExt4(ctx, path+"-none", path+"-clone", 64<<20); api.KindOf(err) != api.KindNotFound {
				t.Error(err)
			}
			if err := h.GrowExt4(ctx, path, 64<<20); err != nil {
				t.Fatal(err)
			}
			if n, err := h.Ext4Size(path); n != 64<<20 || err != nil {
				t.Error(n, err)
			}
			if fi, err := os.Stat(path); err != nil || fi.Size() != 64<<20 {
				t.Error(fi, err)
			}
			if err := h.GrowExt4(ctx, path, 32<<20); api.KindOf(err) != api.KindInvalid {
				t.Error(err)
			}
			if err := h.LookTool("no-such-tool"); api.KindOf(err) != api.KindUnavailable {
				t.Error(err)
			}
			if got, ok := h.ProcessStart(os.Getpid()); !ok || got != start {
				t.Error(got, ok)
			}
			if err := h.Signal(os.Getpid(), start, syscall.Signal(0)); err != nil {
				t.Error(err)
			}
			if err := h.Signal(os.Getpid(), start+1, syscall.SIGKILL); api.KindOf(err) != api.KindNotFound {
				t.Error(err)
			}
			total, err := h.MemoryTotal()
			available, err2 := h.MemoryAvailable()
			free, err3 := h.FreeDisk(t.TempDir())
			if errors.Join(err, err2, err3) != nil || total <= 0 || available > total || free <= 0 || h.CPUs() < 1 || h.BootID() == "" {
				t.Error(total, available, free, err, err2, err3)
			}
		})
	}
}

func TestTheFakeFailsWhereItIsTold(t *testing.T) {
	t.Parallel()
	f := NewFake()
	f.Fail = func(name, _ string) error {
		if name == "MakeExt4" {
			return api.Errorf(api.KindNoSpace, "full")
		}
		return nil
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := f.MakeExt4(t.Context(), path, 1<<20); api.KindOf(err) != api.KindNoSpace {
		t.Error(err)
	}
	f.AddProcess(7, 1)
	if err := f.Signal(7, 1, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if _, ok := f.ProcessStart(7); ok || len(f.Signals()) != 1 {
		t.Error(f.Signals())
	}
}

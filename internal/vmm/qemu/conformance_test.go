package qemu

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/qemu/testkernel"
	"github.com/bangervm/banger/internal/vmm/vmmtest"
)

// The suite with real guests. BANGER_TEST_STORE names a BANGER_ROOT that holds
// an image and a kernel; the tests of folder tests make one.
func TestConformance(t *testing.T) {
	root := os.Getenv("BANGER_TEST_STORE")
	if root == "" {
		t.Skip("BANGER_TEST_STORE names no store")
	}
	newTestDriver(t) // skips where there is no QEMU
	l, err := layout.Resolve(func(k string) string { return map[string]string{"BANGER_ROOT": root}[k] }, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	image := layout.ImageDir{Dir: only(t, l.Images())}
	kernel := layout.KernelDir{Dir: only(t, l.Kernels())}
	l.Cache = t.TempDir()
	n := 0
	vmmtest.Run(t,
		func(t *testing.T) vmm.Driver { return newTestDriver(t) },
		func(t *testing.T) vmm.Spec {
			n++
			spec := testSpec(t, new(testkernel.Program))
			spec.ID, spec.Kernel, spec.MemoryBytes = fmt.Sprint("t", n), kernel.VMLinux(), 512<<20
			spec.Initrd = filepath.Join(spec.RunDir, "initrd")
			spec.Disks = []vmm.Disk{
				{Path: image.RootFS(), Serial: guestapi.RoleRoot, ReadOnly: true},
				{Path: emptyDisk(t, spec.RunDir, "system"), Serial: guestapi.RoleSystem},
				{Path: emptyDisk(t, spec.RunDir, "work"), Serial: guestapi.RoleWork},
			}
			cfg := guestapi.Config{
				Protocol: guestapi.Protocol, VMID: spec.ID, Hostname: spec.ID, Network: guestapi.Network{Mode: "none"},
				Seed: make([]byte, 64), Token: strings.Repeat("0", 64),
			}
			rand.Read(cfg.Seed)
			for i, d := range spec.Disks {
				cfg.Disks = append(cfg.Disks, guestapi.Disk{Role: d.Serial, Serial: d.Serial, Index: i})
			}
			if err := initramfs.Write(l, spec.Initrd, kernel.BootModules(), cfg); err != nil {
				t.Fatal(err)
			}
			return spec
		})
}

// only gives a folder's first folder.
func only(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("nothing in %s: %v", dir, err)
	}
	return filepath.Join(dir, entries[0].Name())
}

func emptyDisk(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name+".ext4")
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", path, "1G").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	return path
}

package vmmtest

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
)

// RealSpecs gives the maker of machines with real guests, of the image and the
// kernel in the BANGER_ROOT that BANGER_TEST_STORE names. It skips the test where
// that names none: the tests of folder tests make one, and the lab has one. A
// linkToken, 64 characters, is for guest links open to the whole host.
func RealSpecs(t *testing.T, accelerator vmm.Accelerator, transport guestapi.Transport, linkToken string) func(t *testing.T) vmm.Spec {
	t.Helper()
	machines := RealMachines(t, accelerator, transport, linkToken)
	return func(t *testing.T) vmm.Spec {
		m := machines(t)
		m.WriteInitrd(t, m.Config)
		return m.Spec
	}
}

// RealMachine is one machine of RealMachines.
type RealMachine struct {
	Spec   vmm.Spec
	Config guestapi.Config // fits the spec

	layout  layout.Layout
	modules string
}

// WriteInitrd writes the spec's initramfs, with that configuration in it.
func (m RealMachine) WriteInitrd(t *testing.T, cfg guestapi.Config) {
	t.Helper()
	if err := initramfs.Write(m.layout, m.Spec.Initrd, m.modules, cfg); err != nil {
		t.Fatal(err)
	}
}

// RealMachines is RealSpecs with no initramfs yet.
func RealMachines(t *testing.T, accelerator vmm.Accelerator, transport guestapi.Transport, linkToken string) func(t *testing.T) RealMachine {
	t.Helper()
	root := os.Getenv("BANGER_TEST_STORE")
	if root == "" {
		t.Skip("BANGER_TEST_STORE names no store")
	}
	l, err := layout.Resolve(func(k string) string { return map[string]string{"BANGER_ROOT": root}[k] }, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	image := layout.ImageDir{Dir: only(t, l.Images())}
	kernel := layout.KernelDir{Dir: only(t, l.Kernels())}
	l.Cache = t.TempDir()
	n := 0
	return func(t *testing.T) RealMachine {
		n++
		dir, err := os.MkdirTemp("", "banger-vmm") // short: sockets
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		spec := vmm.Spec{
			ID: fmt.Sprint("t", n), VCPUs: 1, MemoryBytes: 512 << 20, Accelerator: accelerator, Transport: transport,
			Kernel: kernel.VMLinux(), Initrd: filepath.Join(dir, "initrd"), RunDir: dir, LinkToken: linkToken, LogFile: filepath.Join(dir, "log"),
			Disks: []vmm.Disk{
				{Path: image.RootFS(), Serial: guestapi.RoleRoot, ReadOnly: true},
				{Path: emptyDisk(t, dir, "system"), Serial: guestapi.RoleSystem},
				{Path: emptyDisk(t, dir, "work"), Serial: guestapi.RoleWork},
			},
		}
		cfg := guestapi.Config{
			Protocol: guestapi.Protocol, VMID: spec.ID, Hostname: spec.ID, Network: guestapi.Network{Mode: "none"},
			Seed: make([]byte, 64), Token: strings.Repeat("0", 64), Transport: transport,
		}
		if linkToken != "" {
			cfg.Token, cfg.VsockToken = linkToken, true
		}
		_, _ = rand.Read(cfg.Seed)     // never fails
		for i, d := range spec.Disks { // by order: not every VMM shows serial numbers
			cfg.Disks = append(cfg.Disks, guestapi.Disk{Role: d.Serial, Index: i})
		}
		return RealMachine{spec, cfg, l, kernel.BootModules()}
	}
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

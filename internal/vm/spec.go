package vm

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// spec is the machine as the driver starts it. A disk's serial is its role.
func (m *Manager) spec(rec store.VM, dir layout.VMDir, root string, choice Choice) vmm.Spec {
	kernel := m.d.Layout.Kernel(rec.KernelID)
	s := vmm.Spec{
		ID: rec.ID, Name: rec.Name, VCPUs: rec.VCPUs, MemoryBytes: rec.MemoryBytes,
		Accelerator: choice.Accelerator, Transport: choice.Transport,
		Kernel: kernel.VMLinux(), Initrd: dir.Initrd(), RunDir: dir.Run, LogFile: dir.VMMLog(),
	}
	limits := m.limits(rec)
	s.Limits = vmm.Limits{DiskBytesPerSecond: limits.DiskBytesPerSecond, DiskOperationsPerSecond: limits.DiskOperationsPerSecond}
	strategy := m.rootOf(rec.RootDisk)
	s.Disks = append(strategy.disks(root, strategy.file(dir)),
		vmm.Disk{Path: dir.WorkDisk(), Serial: guestapi.RoleWork},
		vmm.Disk{Path: kernel.Modules(), Serial: guestapi.RoleModules, ReadOnly: true})
	for i := range s.Disks {
		s.Disks[i].Fleeting = rec.AutoRemove && !s.Disks[i].ReadOnly
	}
	if rec.Init == initImage {
		// Nobody types on the console, which is a log: systemd's login there would
		// wait 90 s for its device where the image has no udev.
		s.Cmdline = append(s.Cmdline, "systemd.getty_auto=0")
	}
	// At every start: a home that is still to be filled is the guest's to see.
	if seed := m.d.Layout.Image(rec.ImageID).WorkSeed(); size(seed) > 0 {
		s.Disks = append(s.Disks, vmm.Disk{Path: seed, Serial: guestapi.RoleSeed, ReadOnly: true})
	}
	if rec.Network == networkUser {
		s.Network = &vmm.NIC{Socket: dir.NetSocket(), MAC: mac(rec.ID), MTU: m.d.Network.MTU}
	}
	return s
}

// limits are what the machine may take of the host, when it is started now.
func (m *Manager) limits(rec store.VM) api.VMLimits {
	l := m.d.Defaults.Limits
	if rec.Network != networkUser {
		l.NetworkBytesPerSecond = 0
	}
	return l
}

// mac is a locally administered address of the VM's own.
func mac(id string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	s := h.Sum32()
	return fmt.Sprintf("52:54:%02x:%02x:%02x:%02x", byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
}

// guestConfig is what the guest of the machine finds in its initramfs. Each disk
// is named by its role.
func (m *Manager) guestConfig(ctx context.Context, rec store.VM, spec vmm.Spec, token string) (guestapi.Config, error) {
	image, err := m.d.Store.Image(ctx, rec.ImageID)
	if err != nil {
		return guestapi.Config{}, err
	}
	seed := make([]byte, 64)
	_, _ = rand.Read(seed) // never fails
	c := guestapi.Config{
		Protocol: guestapi.Protocol, VMID: rec.ID, Hostname: rec.Name,
		Network: guestapi.Network{Mode: networkNone},
		Env:     append(imageEnv(image.Config.Env), rec.Env...),
		Workdir: first(rec.Workdir, image.Config.Workdir), User: first(rec.User, image.Config.User),
		KernelRelease: rec.KernelVer, Seed: seed, Token: token, OwnRoot: m.rootOf(rec.RootDisk).own(),
	}
	if rec.Network == networkUser {
		c.Network = m.d.Network
		c.Network.Mode = networkUser
	}
	if rec.Init == initImage {
		c.Init, c.InitArgv = guestapi.InitImage, ownInit(image.Config)
		c.InitPatienceMS = initPatience(spec.Accelerator).Milliseconds()
	}
	if m.d.SSHKey != nil {
		key, err := m.d.SSHKey()
		if err != nil {
			return c, err
		}
		c.AuthorizedKey = &key
	}
	for i, d := range spec.Disks {
		c.Disks = append(c.Disks, guestapi.Disk{Role: d.Serial, Serial: d.Serial, Index: i})
	}
	return c, nil
}

// imageEnv is the image's environment without what is ours to say: the guest
// sets its own first, and Config.Env on top.
func imageEnv(env []string) []string {
	out := make([]string, 0, len(env))
	for _, e := range env {
		switch key, _, _ := strings.Cut(e, "="); key {
		case "HOME", "USER", "LOGNAME", "SHELL", "TERM", "IS_SANDBOX", "":
		default:
			out = append(out, e)
		}
	}
	return out
}

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/firecracker/fcapi"
)

// What Firecracker takes, and the kernel of a socket's path.
const (
	maxVCPUs   = 32
	maxCmdline = 2048
	maxSocket  = 107
	maxDisks   = 8
	guestCID   = 3 // each machine has a vsock of its own
	tapName    = "tap"
	networkID  = "eth0"
)

var goodID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// bootArgs are the kernel parameters. Firecracker's own have nomodule in them,
// so ours stand alone. A panic resets, which ends Firecracker; the keyboard
// controller has the reset line and no keyboard to be asked for.
func bootArgs(spec vmm.Spec) string {
	p := []string{"console=ttyS0", "reboot=k", "panic=-1", "quiet", "random.trust_cpu=on", "i8042.noaux", "i8042.nomux", "i8042.dumbkbd", "pci=off"}
	return strings.Join(append(p, spec.Cmdline...), " ")
}

// validate refuses what Firecracker would misread or not take.
func validate(spec vmm.Spec) error {
	invalid := func(format string, args ...any) error {
		return api.Errorf(api.KindInvalid, "cannot start machine %q: "+format, append([]any{spec.ID}, args...)...)
	}
	switch {
	case !goodID.MatchString(spec.ID):
		return invalid("its id is not 1 to 64 letters, digits and hyphens")
	case spec.VCPUs < 1 || spec.VCPUs > maxVCPUs:
		return invalid("%d processors are not between 1 and %d", spec.VCPUs, maxVCPUs)
	case spec.MemoryBytes < 64<<20:
		return invalid("%d bytes of memory are less than 64 MiB", spec.MemoryBytes)
	case spec.Accelerator != vmm.KVM:
		return api.Errorf(api.KindUnsupported, "cannot start machine %q: Firecracker has no accelerator %q, only kvm", spec.ID, spec.Accelerator)
	case spec.Transport != "" && spec.Transport != guestapi.TransportVsock:
		return api.Errorf(api.KindUnsupported, "cannot start machine %q: Firecracker has no transport %q, only vsock", spec.ID, spec.Transport)
	case spec.Kernel == "":
		return invalid("no kernel given")
	case spec.RunDir == "":
		return invalid("no folder for sockets given")
	case spec.Limits.Wrong() != "":
		return invalid("%s", spec.Limits.Wrong())
	case len(spec.Disks) > maxDisks:
		return invalid("%d disks are more than %d", len(spec.Disks), maxDisks)
	}
	if args := bootArgs(spec); len(args) >= maxCmdline || strings.ContainsAny(args, "\x00\n") {
		return invalid("its kernel parameters are %d bytes, or hold a line break; less than %d are possible", len(args), maxCmdline)
	}
	for _, name := range []string{apiSocket, linkSocket} {
		if path := filepath.Join(spec.RunDir, folder, name); len(path) > maxSocket {
			return invalid("its socket %s would have a path of %d bytes, %d are possible", path, len(path), maxSocket).(*api.Error).
				WithHint("export BANGER_ROOT=/var/tmp/banger-$USER")
		}
	}
	for _, d := range spec.Disks {
		if _, err := os.Stat(d.Path); err != nil {
			return api.Errorf(api.KindUnavailable, "cannot start machine %q: its disk: %w", spec.ID, err)
		}
	}
	return nil
}

// usableKVM says why the device cannot be used, so that nothing is begun in vain.
func usableKVM(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, os.ErrPermission):
		return api.Errorf(api.KindDenied, "cannot start Firecracker: no permission to open %s", device).WithHint("sudo usermod -aG kvm $USER")
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return api.Errorf(api.KindUnsupported, "cannot start Firecracker: this host has no %s", device).WithHint("banger doctor")
	}
	return api.Errorf(api.KindUnavailable, "cannot start Firecracker: cannot open %s: %w", device, err).WithHint("banger doctor")
}

// step is one request of the setup.
type step struct {
	what, path string
	body       any
}

// setup is what Firecracker of that version is told before the start, in order:
// the guest finds its disks in the order in which they are named.
func setup(spec vmm.Spec, v version, at places) []step {
	steps := []step{
		{"metrics", "/metrics", fcapi.Metrics{Path: at.own(metricsFIFO)}},
		{"machine", "/machine-config", fcapi.MachineConfig{VCPUs: spec.VCPUs, MemoryMiB: spec.MemoryBytes >> 20}},
		{"kernel", "/boot-source", fcapi.BootSource{Kernel: at.kernel, Initrd: at.initrd, BootArgs: bootArgs(spec)}},
	}
	for i, d := range spec.Disks {
		id := driveID(i)
		cache := "Writeback"
		if d.Fleeting {
			cache = "Unsafe"
		}
		steps = append(steps, step{"disk " + d.Serial, "/drives/" + id, fcapi.Drive{
			ID: id, Path: at.disks[i], ReadOnly: d.ReadOnly, Cache: cache, RateLimiter: rateLimiter(spec.Limits),
		}})
	}
	if n := spec.Network; n != nil {
		nic := fcapi.NetworkInterface{ID: networkID, Tap: tapName, MAC: n.MAC}
		if v.has(minorMTU) {
			nic.MTU = n.MTU
		}
		steps = append(steps, step{"network", "/network-interfaces/" + networkID, nic})
	}
	return append(steps,
		step{"vsock", "/vsock", fcapi.Vsock{CID: guestCID, Socket: at.own(linkSocket)}},
		step{"entropy device", "/entropy", fcapi.Entropy{}},
		// Empty, it takes nothing; the guest may have back what it is asked for
		// later before it runs out of memory. What the guest frees goes back to the
		// host by itself where it can. Hinting, which came with that, is left alone:
		// the guest may use a page again before the host lets go of it. Its figures
		// are not asked for: the agent has them with every driver.
		step{"balloon", "/balloon", fcapi.Balloon{DeflateOnOOM: true, Reporting: v.has(minorReporting)}},
		step{"start", "/actions", fcapi.Action{Type: fcapi.InstanceStart}},
	)
}

// rateLimiter is nil without limits. A bucket holds what a second allows, as with
// QEMU: Firecracker looks into an empty one every tenth of a second only, so that a
// smaller one might give less than the limit. After a pause twice of it comes at
// once, as Firecracker fills one up when it is empty for the time it was full.
func rateLimiter(l vmm.Limits) *fcapi.RateLimiter {
	bucket := func(perSecond int64) *fcapi.TokenBucket {
		if perSecond == 0 {
			return nil
		}
		return &fcapi.TokenBucket{Size: perSecond, RefillMS: time.Second.Milliseconds()}
	}
	if l == (vmm.Limits{}) {
		return nil
	}
	return &fcapi.RateLimiter{Bandwidth: bucket(l.DiskBytesPerSecond), Ops: bucket(l.DiskOperationsPerSecond)}
}

// driveID is Firecracker's name for the disk of that place in the spec.
func driveID(i int) string { return fmt.Sprintf("disk%d", i) }

package qemu

import (
	"log/slog"
	"os/exec"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/child"
)

// programName is what is looked for in PATH. Debian's slimmer
// qemu-system-x86_64-microvm has neither emulation nor sandbox.
const programName = "qemu-system-x86_64"

const installHint = "sudo apt-get install qemu-system-x86"

// Options of the driver.
type Options struct {
	// Binary is the path of qemu-system-x86_64; empty means the one in PATH.
	Binary string
}

// Driver starts machines with QEMU. New makes it.
type Driver struct {
	binary string
	log    *slog.Logger
	tsc    tscSample // taken early, so that a start need not wait

	version child.Version
}

// New makes a driver. It looks at nothing yet.
func New(o Options, log *slog.Logger) *Driver {
	return &Driver{binary: o.Binary, log: log, tsc: sampleTSC()}
}

var _ vmm.Driver = (*Driver)(nil)

// Name is qemu.
func (d *Driver) Name() string { return "qemu" }

// Capabilities of this driver.
func (d *Driver) Capabilities() vmm.Capabilities {
	return vmm.Capabilities{
		Pause: true, PowerButton: true, Resize: true, Serials: true, Limits: true,
		Accelerators: []vmm.Accelerator{vmm.KVM, vmm.TCG},
		// A spec may ask for vsock too. It is offered to nobody: every user of the
		// host reaches such a guest, and the guest whatever listens on the host's
		// vsock.
		Transports: []guestapi.Transport{guestapi.TransportSerial},
	}
}

// find gives the program's path.
func (d *Driver) find() (string, error) {
	name := d.binary
	if name == "" {
		name = programName
	}
	path, err := exec.LookPath(name)
	if err != nil {
		e := api.Errorf(api.KindUnavailable, "cannot find QEMU: %w", err)
		if d.binary != "" {
			return "", e.WithHint("banger config show")
		}
		return "", e.WithHint(installHint)
	}
	return path, nil
}

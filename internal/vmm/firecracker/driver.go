package firecracker

import (
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/host/cgroup"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/child"
)

// programName is what is looked for in PATH.
const programName = "firecracker"

const fetchHint = "banger system fetch-firecracker"

// Options of the driver.
type Options struct {
	// Binary is the path of firecracker; empty means the one in PATH, else the
	// fetched one.
	Binary string
	// Fetched is where a fetched one lies, if there is one.
	Fetched string
	// Self is the banger binary, which has the command cell.
	Self string
	// KVM is the device; empty means /dev/kvm.
	KVM string
	// Place is where machines get control groups; nil means what cgroup.Find says.
	Place func() (cgroup.Place, error)
}

// Driver starts machines with Firecracker. New makes it.
type Driver struct {
	opts Options
	log  *slog.Logger
	// patience is how long Firecracker may take for one answer: longer means that
	// it hangs.
	patience time.Duration
	// spare is what Firecracker may map beside the guest's memory, in bytes.
	spare uint64

	version child.Version
}

// New makes a driver. It looks at nothing yet.
func New(o Options, log *slog.Logger) *Driver {
	if o.KVM == "" {
		o.KVM = "/dev/kvm"
	}
	if o.Place == nil {
		o.Place = cgroup.Find
	}
	return &Driver{opts: o, log: log, patience: time.Minute, spare: 1 << 30}
}

var _ vmm.Driver = (*Driver)(nil)

// Name is firecracker.
func (d *Driver) Name() string { return "firecracker" }

// Capabilities of this driver.
func (d *Driver) Capabilities() vmm.Capabilities {
	return vmm.Capabilities{
		Pause: true, PowerButton: true, Resize: true, Tap: true, Groups: true, Limits: true,
		Accelerators: []vmm.Accelerator{vmm.KVM},
		Transports:   []guestapi.Transport{guestapi.TransportVsock},
	}
}

// Program is the path of the program, empty when there is none.
func (d *Driver) Program() string {
	path, err := d.find()
	if err != nil {
		return ""
	}
	return path
}

// find gives the program's path.
func (d *Driver) find() (string, error) {
	if d.opts.Binary != "" {
		path, err := exec.LookPath(d.opts.Binary)
		if err != nil {
			return "", api.Errorf(api.KindUnavailable, "cannot find Firecracker: %w", err).WithHint("banger config show")
		}
		return path, nil
	}
	path, err := exec.LookPath(programName)
	if err == nil {
		return path, nil
	}
	if d.opts.Fetched != "" {
		if _, err := os.Stat(d.opts.Fetched); err == nil {
			return d.opts.Fetched, nil
		}
	}
	return "", api.Errorf(api.KindUnavailable, "cannot find Firecracker: it is neither in PATH nor fetched").WithHint(fetchHint)
}

package fake

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
)

// Options say how the driver behaves.
type Options struct {
	// CheckError and StartError, when not nil, are what Check and Start return.
	CheckError, StartError error
	// Silent machines have an agent that never answers.
	Silent bool
}

// Driver is the fake driver; New makes it.
type Driver struct {
	opts Options
	log  *slog.Logger

	mu       sync.Mutex
	machines []*Machine
}

// New makes a driver.
func New(opts Options, log *slog.Logger) *Driver { return &Driver{opts: opts, log: log} }

var _ vmm.Driver = (*Driver)(nil)

// Name is fake.
func (d *Driver) Name() string { return "fake" }

// Capabilities of this driver.
func (d *Driver) Capabilities() vmm.Capabilities {
	return vmm.Capabilities{
		Pause: true, PowerButton: true, Resize: true, Serials: true,
		Accelerators: []vmm.Accelerator{vmm.KVM, vmm.TCG},
		Transports:   []guestapi.Transport{guestapi.TransportSerial},
	}
}

// Check finds what is always there.
func (d *Driver) Check(ctx context.Context) (vmm.Version, error) {
	if err := ctx.Err(); err != nil {
		return vmm.Version{}, err
	}
	return vmm.Version{Text: "1.0"}, d.opts.CheckError
}

// Start makes a machine.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, console io.Writer) (vmm.Machine, error) {
	switch {
	case d.opts.StartError != nil:
		return nil, d.opts.StartError
	case ctx.Err() != nil:
		return nil, api.Errorf(api.KindCancelled, "cannot start the machine: %w", ctx.Err())
	case spec.ID == "" || spec.VCPUs < 1 || spec.MemoryBytes <= 0:
		return nil, api.Errorf(api.KindInvalid, "cannot start machine %q: its size is not that of a machine", spec.ID)
	}
	if spec.Limits != (vmm.Limits{}) {
		return nil, api.Errorf(api.KindUnsupported, "cannot start machine %q: its guest has no disks whose use could be limited", spec.ID)
	}
	for _, disk := range spec.Disks {
		if _, err := os.Stat(disk.Path); err != nil {
			return nil, api.Errorf(api.KindInternal, "cannot start machine %q: %w", spec.ID, err)
		}
	}
	m := newMachine(spec, console, d.opts.Silent, d.log)
	d.mu.Lock()
	d.machines = append(d.machines, m)
	d.mu.Unlock()
	return m, nil
}

// Machines are all that were started, ended ones too.
func (d *Driver) Machines() []*Machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*Machine(nil), d.machines...)
}

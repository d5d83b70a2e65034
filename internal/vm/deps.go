package vm

import (
	"context"
	"io"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// Deps is everything the manager needs, handed over by the daemon's wiring.
type Deps struct {
	Layout     layout.Layout
	Store      Store
	Operations *operation.Registry
	Images     Images
	Kernels    Kernels
	Keepers    Keepers
	// Guest opens the link to the agent behind a keeper; nil means guestlink.
	Guest func(Keeper) Guest
	// Initrd writes the initramfs of one start to path: the guest binary, the
	// kernel's boot modules and the configuration.
	Initrd func(ctx context.Context, path string, kernel layout.KernelDir, config guestapi.Config) error
	// SSHKey is the key to authorise in every home, asked at each start; nil
	// stands for none.
	SSHKey    func() (guestapi.AuthorizedKey, error)
	Host      Host
	Snapshots Snapshots
	Accel     Accel
	// Templates is nil for machines that always boot.
	Templates Templates
	// Network is what eth0 of a guest in mode user is set up with; its Mode is
	// ignored.
	Network  guestapi.Network
	Defaults Defaults
	Build    string
	Log      *slog.Logger
	Now      func() time.Time
	// Event announces what happened, e.g. vm.started. It must not block for long.
	Event func(kind, target string, data map[string]string)
	// Timing is zero for the real values.
	Timing Timing
}

// Defaults are the configured values for what a create request leaves out.
type Defaults struct {
	Image              string
	Driver             string // auto, firecracker, qemu
	Accelerator        string // auto, kvm, tcg
	Network            string // user, none
	VCPUs              int
	MemoryBytes        int64
	DiskBytes          int64
	SystemOverlayBytes int64
	Limits             api.VMLimits // of every machine, from its next start on
}

// Timing holds the time-outs. Those named TCG hold under emulation.
type Timing struct {
	Ready, ReadyTCG time.Duration // from launch to the agent's first answer
	Stop, StopTCG   time.Duration // an orderly stop, when the caller names none
	StopInit        time.Duration // the same where the image's own init has to do it
	Gone            time.Duration // from a kill to the keeper's end
	Hangup          time.Duration // from HUP to KILL when the client of a run is gone
	Overtime        time.Duration // what the agent has for ending a command whose time is over, and for saying so
	Grow            time.Duration // VMM and guest, to take note of a disk that has grown
	Undo            time.Duration // cleaning up after a failed or cancelled run
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&t.Ready, 2*time.Minute) // a busy host takes its time; a guest that dies ends the wait
	set(&t.ReadyTCG, 180*time.Second)
	set(&t.Stop, 10*time.Second)
	set(&t.StopTCG, 30*time.Second)
	set(&t.StopInit, 100*time.Second)
	set(&t.Gone, 10*time.Second)
	set(&t.Hangup, 10*time.Second)
	set(&t.Overtime, 10*time.Second)
	set(&t.Grow, time.Minute)
	set(&t.Undo, 30*time.Second)
	return t
}

// Host is the outside world as this package needs it.
type Host interface {
	CPUs() int
	MemoryTotal() (int64, error)
	MemoryAvailable() (int64, error)
	// FreeDisk is what an ordinary user may still write below the folder.
	FreeDisk(dir string) (int64, error)
	// LookTool says with an error for people that a program is missing.
	LookTool(name string) error
	BootID() string
	// MakeExt4 makes a sparse file with an empty file system.
	MakeExt4(ctx context.Context, path string, bytes int64) error
	// Ext4Size is what the file system of a disk spans; 0 when none is on it.
	Ext4Size(path string) (int64, error)
	// GrowExt4 enlarges file and file system of a disk that nobody uses.
	GrowExt4(ctx context.Context, path string, bytes int64) error
	// CanClone says with an error that a file cannot be cloned into a folder.
	CanClone(path, dir string) error
	// CloneExt4 makes the file to a writable copy of the image in from, of so many
	// bytes, that shares the blocks which are not changed.
	CloneExt4(ctx context.Context, from, to string, bytes int64) error
	// OwnExt4 makes a writable file system of an image's, fitted to its disk of so
	// many bytes; it does nothing where that was done.
	OwnExt4(ctx context.Context, path string, bytes int64) error
	// ProcessStart is when a process began, in ticks since the host's boot;
	// false when there is none.
	ProcessStart(pid int) (uint64, bool)
	// Signal sends a signal to the process that began then, and to no other.
	Signal(pid int, start uint64, sig syscall.Signal) error
	// RemoveGroup removes the control group of that name, with what runs in it;
	// none is no error.
	RemoveGroup(name string) error
}

// Snapshots makes root disks with device-mapper; *mapper.Mapper is the real one,
// behind the wiring's small wrapper.
type Snapshots interface {
	// Check says with an error why there are none here.
	Check() error
	// CheckFolder says with an error why their changes cannot be kept there.
	CheckFolder(dir string) error
	// ChangesSize is the size of the file for all changes of a disk of so many bytes.
	ChangesSize(bytes int64) int64
	// MakeChanges makes that file, its room laid aside; GrowChanges makes it larger,
	// or lays the room aside for a disk that is in use.
	MakeChanges(path string, bytes int64) error
	GrowChanges(path string, bytes int64, used bool) error
	// Damage says what is wrong with it; empty when nothing is to be seen.
	Damage(path string) (string, error)
	// Open makes the device of that VM, which lasts until its last user has closed
	// it; hold is our use of it.
	Open(ctx context.Context, id, base, changes string, bytes int64) (device string, hold io.Closer, err error)
	// Release returns when there is no device of that VM.
	Release(ctx context.Context, id string) error
}

// Store keeps the durable records; *store.DB is the real one.
type Store interface {
	InsertVM(ctx context.Context, vm store.VM) error
	UpdateVM(ctx context.Context, id string, change func(*store.VM) error) (store.VM, error)
	VM(ctx context.Context, id string) (store.VM, error)
	VMByName(ctx context.Context, name string) (store.VM, error)
	VMByRequestID(ctx context.Context, requestID string) (store.VM, error)
	VMs(ctx context.Context) ([]store.VM, error)
	DeleteVM(ctx context.Context, id string) error
	Image(ctx context.Context, id string) (store.Image, error)
}

// Report receives how far a pull is.
type Report func(stage string, progress api.Progress)

// Images finds the image a reference names, pulling it as the policy (missing,
// always, never) allows. Cancelling ctx ends the wait, not the pull of others.
type Images interface {
	Resolve(ctx context.Context, reference, pull string, report Report) (store.Image, error)
	// KernelAhead is the kernel that an image will want which is not here but can
	// be pulled; empty for every other.
	KernelAhead(ctx context.Context, reference string) string
	// Usable gives the path of an image's root file system, once it was looked
	// whether its files are there and what they were.
	Usable(image store.Image) (root string, err error)
}

// Kernels is the same for kernels. An empty name means the default kernel.
type Kernels interface {
	Resolve(ctx context.Context, name, pull string, report Report) (store.Kernel, error)
}

// Accel chooses the driver and the accelerator for what a VM asks for (auto or
// a name), and says why. Its first call may boot a probe.
type Accel interface {
	Choose(ctx context.Context, driver, accelerator string, kernel layout.KernelDir) (Choice, error)
}

// Templates keeps guests that were booted before, for machines of the same kind to
// go on from; *template.Manager is the real one.
type Templates interface {
	// For gives one for the machine, nil where there is none.
	For(ctx context.Context, driver string, spec vmm.Spec) *vmm.Template
	// Booted says that the machine came up without one: others may come after it.
	Booted(ctx context.Context, driver string, spec vmm.Spec)
	// Bad says why a machine did not come up from this one.
	Bad(t vmm.Template, why error)
}

// Choice is what will run a machine.
type Choice struct {
	Driver      string
	Accelerator vmm.Accelerator
	Transport   guestapi.Transport // of the guest link
	Serials     bool               // the guest sees the serial numbers of its disks
	Reason      string
}

// Boot is what a keeper is started with; the wiring adds what is the same for
// all (programs, limits of logs, the user network's settings).
type Boot struct {
	Spec    vmm.Spec
	Driver  string
	Network string // user or none
	Token   string // admits to the guest's bulk port
	// NetworkBytesPerSecond bounds each direction of the user network; 0 is no limit.
	NetworkBytesPerSecond int64
}

// Keepers starts keeper processes and finds running ones.
type Keepers interface {
	// Launch returns once the keeper answers. On an error nothing runs.
	Launch(ctx context.Context, dir layout.VMDir, boot Boot) (Keeper, error)
	// Attach finds the keeper of a folder; kind not-found when none answers.
	Attach(ctx context.Context, dir layout.VMDir) (Keeper, error)
}

// KeeperState is what of a keeper's state matters here.
type KeeperState struct {
	PID    int // of the keeper
	VMMPID int
	Exited bool // the VMM has ended and the keeper is about to
	// Waits is why the guest stands still though nobody paused it; else empty.
	Waits string
	// NoTemplate is why a machine that was to go on from a template has booted.
	NoTemplate string
}

// Keeper is one VM's keeper process: the wiring's small wrapper of
// *keeper.Client.
type Keeper interface {
	State(ctx context.Context) (KeeperState, error)
	// Watch gives the state now and at each change, until the keeper is gone or
	// ctx ends; the channel is then closed.
	Watch(ctx context.Context) (<-chan KeeperState, error)
	PowerButton(ctx context.Context) error
	Kill(ctx context.Context) error
	DialGuest(ctx context.Context) (net.Conn, error)
	DialBulk(ctx context.Context) (net.Conn, error)
	// Done is closed when the keeper process is gone.
	Done() <-chan struct{}
	// Exit is the keeper's last word; false when it left none.
	Exit() (vmm.Exit, bool)
}

// resizer is a Keeper that can tell its VMM that a disk's file has grown.
type resizer interface {
	Resize(ctx context.Context, serial string, bytes int64) error
}

// Guest is the agent in a guest.
type Guest interface {
	Health(ctx context.Context) (guestapi.Health, error)
	Shutdown(ctx context.Context, how guestapi.Shutdown) (guestapi.ShutdownReply, error)
	Grow(ctx context.Context, role string) (guestapi.GrowReply, error)
	// Exec opens a command's stream; booting says that the guest may not be up yet.
	Exec(ctx context.Context, request guestapi.ExecRequest, booting bool) (ExecStream, error)
	Close() error
}

// ExecStream carries the frames of one command. Send is safe for concurrent
// use; the payload Recv returns is valid until the next Recv.
type ExecStream interface {
	Recv() (channel byte, payload []byte, err error)
	Send(channel byte, payload []byte) error
	Close() error
}

// Stream is the client's end of an exec or run. Recv is called from one
// goroutine; its payload is valid until the next call. Send is called from
// several and returns once the payload may be reused.
type Stream interface {
	Recv(ctx context.Context) (api.Channel, []byte, error)
	Send(ctx context.Context, channel api.Channel, payload []byte) error
}

package vmm

import (
	"context"
	"io"
	"net"
	"os"
	"time"

	"github.com/bangervm/banger/guestapi"
)

// Accelerator is what runs the guest's instructions.
type Accelerator string

// The accelerators.
const (
	KVM Accelerator = "kvm"
	TCG Accelerator = "tcg"
)

// Spec is one machine to start. All paths are absolute.
type Spec struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	VCPUs       int         `json:"vcpus"`
	MemoryBytes int64       `json:"memory_bytes"`
	Accelerator Accelerator `json:"accelerator"`
	Kernel      string      `json:"kernel"` // uncompressed vmlinux
	Initrd      string      `json:"initrd"`
	// Cmdline is what the caller adds to the driver's own kernel parameters.
	Cmdline []string `json:"cmdline,omitempty"`
	Disks   []Disk   `json:"disks"`
	// Limits bound what the guest takes of the host's disks. A driver whose
	// Capabilities lack Limits refuses a spec with any.
	Limits Limits `json:"limits,omitzero"`
	// LinkToken is sent first on each connection of the guest link, where other
	// users of the host can reach the guest: guestapi.Config.VsockToken.
	LinkToken string `json:"link_token,omitempty"`
	// Network is nil for a machine with no network device.
	Network *NIC `json:"network,omitempty"`
	// RunDir holds the driver's sockets; it exists and is private.
	RunDir string `json:"run_dir"`
	// LogFile receives what the VMM itself says (not the console).
	LogFile string `json:"log_file"`
	// MetricsFile holds the VMM's newest figures, where it gives any; empty means
	// that nobody wants them.
	MetricsFile string `json:"metrics_file,omitempty"`
	// Transport of the guest link, one of the driver's; empty means its first.
	Transport guestapi.Transport `json:"transport,omitempty"`
	// Template is what the machine goes on from instead of booting, told by Wake
	// what to be; nil means that it boots.
	Template *Template      `json:"template,omitempty"`
	Wake     *guestapi.Wake `json:"wake,omitempty"`
}

// Template is a guest that waits (guestapi.Config.Park) and was copied, for machines
// of the same kind to go on from: VMM, kernel and its parameters, processors,
// memory, number of disks, network device or none. It is good for one boot of the
// host.
type Template struct {
	Memory string `json:"memory"` // path of the guest's memory, as long as Spec.MemoryBytes
	State  string `json:"state"`  // path of all else
}

// Disk is one block device, in the order the guest shall see it. Not every VMM
// shows the guest the serial number; the order holds everywhere.
type Disk struct {
	Path     string `json:"path"`
	Serial   string `json:"serial"` // at most 20 bytes
	ReadOnly bool   `json:"read_only"`
	// Fleeting says that nobody asks for the disk after a crash of the host: what
	// the guest flushes need not reach the host's disk.
	Fleeting bool `json:"fleeting,omitempty"`
	// Block says that Path is a block device, not a file.
	Block bool `json:"block,omitempty"`
}

// Limits hold for each disk, reads and writes together; zero is no limit. What
// two seconds allow may come at once, no more.
type Limits struct {
	DiskBytesPerSecond      int64 `json:"disk_bytes_per_second,omitempty"`
	DiskOperationsPerSecond int64 `json:"disk_operations_per_second,omitempty"`
}

// Wrong says what cannot be right about them; empty when nothing is.
func (l Limits) Wrong() string {
	if l.DiskBytesPerSecond < 0 || l.DiskOperationsPerSecond < 0 {
		return "a limit of its disks is negative"
	}
	return ""
}

// NIC is one network device. Its frames go over a Unix stream socket that the
// caller listens on, each behind its length as uint32 big endian; with a driver
// whose Capabilities have Tap they go through Tapper.Tap instead.
type NIC struct {
	Socket string `json:"socket,omitempty"`
	MAC    string `json:"mac"`
	MTU    int    `json:"mtu"`
}

// Capabilities say what a driver can do; ask them, never the driver's name.
type Capabilities struct {
	Pause       bool
	PowerButton bool
	Snapshot    bool
	Resize      bool // its machines are Resizers
	Tap         bool // its machines are Tappers
	Groups      bool // its machines get control groups with limits, where the host has them
	Limits      bool // it keeps Spec.Limits
	Serials     bool // guests see the serial numbers of their disks; else they go by the order
	// Accelerators it can run guests with, and Transports of the guest link it
	// has, the preferred one first.
	Accelerators []Accelerator
	Transports   []guestapi.Transport
}

// Version of a VMM's program.
type Version struct {
	Program string // path of the program
	Text    string // e.g. 7.2.22
	Note    string // what is to be said of it, e.g. that it is newer than we know
}

// Driver starts machines. It may be used from several goroutines.
type Driver interface {
	// Name is the driver's name in configuration and replies: firecracker, qemu, fake.
	Name() string
	Capabilities() Capabilities
	// Check finds the VMM's program and its version. An error is of kind
	// unavailable (missing) or unsupported (too old) and has a hint.
	Check(ctx context.Context) (Version, error)
	// Start launches the VMM bound to this process: when this process dies, by
	// whatever cause, the VMM is killed. It returns once the VMM's process runs
	// and its control channel answers; the guest boots on. The guest's console
	// is copied to console until the end; a slow console loses output rather than
	// stop the guest. ctx bounds Start only. On an error nothing is left running.
	// A guest of a template has taken its Wake when Start returns.
	Start(ctx context.Context, spec Spec, console io.Writer) (Machine, error)
}

// Machine is one started VMM. Methods may be called from several goroutines,
// and after the end they return an error of kind bad-state.
type Machine interface {
	// PID of the VMM's process.
	PID() int
	// DialGuest opens one stream to the guest's agent. It waits, as long as ctx
	// allows, for a guest that is not up yet. The caller closes the stream.
	DialGuest(ctx context.Context) (net.Conn, error)
	// PowerButton asks the guest to power off (ctrl-alt-del).
	PowerButton(ctx context.Context) error
	// Pause stops the guest's processors, Resume lets them go on. Both succeed
	// when there is nothing to do.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Kill ends the VMM's process at once; Done follows.
	Kill() error
	// Done is closed when the VMM's process is gone and all its console output
	// was copied.
	Done() <-chan struct{}
	// Exit says how it ended; valid once Done is closed.
	Exit() Exit
}

// Reason is why a machine ended.
type Reason string

// The reasons.
const (
	ReasonPowerOff Reason = "power-off" // the guest powered itself off
	ReasonReset    Reason = "reset"     // the guest asked for a reboot; we end instead
	ReasonPanic    Reason = "panic"     // the guest's kernel panicked
	ReasonKilled   Reason = "killed"    // by Kill
	ReasonCrashed  Reason = "crashed"   // the VMM ended on its own
)

// Exit is the end of a machine.
type Exit struct {
	Reason Reason    `json:"reason"`
	Detail string    `json:"detail,omitempty"` // the panic's text, the signal, the VMM's last words
	At     time.Time `json:"at"`
}

// Templater is a Driver that makes templates.
type Templater interface {
	// Templates says whether it makes them for machines with that accelerator.
	Templates(a Accelerator) bool
	// MakeTemplate boots the spec's guest, which parks, and copies it into the two
	// files; the memory's must not exist. Nothing is left running.
	MakeTemplate(ctx context.Context, spec Spec, into Template) error
}

// Waiter is a Machine whose guest may have to wait for the host, and says so.
type Waiter interface {
	// Waits gives why the guest stands still though nobody paused it, and the
	// empty word when it goes on. Only the newest word waits for a slow reader.
	// Nothing comes after the end.
	Waits() <-chan string
}

// Resizer is a Machine that can be told, while it runs, that the file of a disk
// has grown; Capabilities.Resize says so.
type Resizer interface {
	// Resize makes the guest see the disk with that serial as so many bytes
	// large. Fewer than it has is an error of kind invalid.
	Resize(ctx context.Context, serial string, bytes int64) error
}

// Tapper is a Machine whose network device is a tap; Capabilities.Tap says so.
type Tapper interface {
	// Tap is the other end of the guest's network device: a read gives one frame,
	// a write sends one. It is nil for a machine without a network device. The
	// caller, who asks once, closes it.
	Tap() *os.File
}

package guestapi

// Protocol is the generation of everything in this package.
const Protocol = 1

// ConfigPath is where the initramfs holds Config, as JSON.
const ConfigPath = "/banger/config.json"

// ModulesPath is the folder of the initramfs with the boot modules. Its file
// LoadAlways lists the file names of those every guest needs, one a line, in the
// order to load them; LoadAlways.TRANSPORT those of one transport, and LoadLater
// those nothing waits for.
const (
	ModulesPath = "/banger/modules"
	LoadAlways  = "load"
	LoadLater   = "load.later"
)

// Transport is what carries the guest link.
type Transport string

// The transports. On TransportSerial one port carries all streams, see LinkKind;
// on TransportVsock each connection is a stream.
const (
	TransportSerial Transport = "serial"
	TransportVsock  Transport = "vsock"
)

// PortName is the name of the virtio-serial port that carries the guest link.
const PortName = "banger.link.0"

// VsockPort is the vsock port on which the agent serves. Only the host may
// connect: what runs in the guest is not let in.
const VsockPort = 1022

// BulkPort is the TCP port in the guest on which the agent serves the same API
// for streams that carry much data into the guest. The first 64 bytes of a connection
// are Config.Token; a connection that does not begin with it is closed.
const BulkPort = 1022

// Config is everything the guest must know to boot, written by the host for
// each start.
type Config struct {
	Protocol int    `json:"protocol"`
	VMID     string `json:"vm_id"`
	Hostname string `json:"hostname"`
	// Transport of the guest link; empty means serial.
	Transport Transport `json:"transport,omitempty"`
	// Probe makes the guest print ProbeReply on the console and reset: the
	// accelerator probe. Nothing else is read then.
	Probe bool `json:"probe,omitempty"`

	// Park makes the guest print ParkedMark before it looks at its disks and its
	// network device, and wait for a Wake with another Config, by which it goes on.
	// Its transport is serial.
	Park bool `json:"park,omitempty"`

	Disks []Disk `json:"disks"`
	// OwnRoot says that the root disk is this VM's alone: it is mounted, writable,
	// as the root itself, and there is no system disk.
	OwnRoot bool    `json:"own_root,omitempty"`
	Network Network `json:"network"`
	// Env is set for every command, after the guest's own HOME, TERM and so on.
	Env     []string `json:"env,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	User    string   `json:"user,omitempty"`
	// KernelRelease names the folder of the modules disk: /lib/modules/<it>.
	KernelRelease string `json:"kernel_release,omitempty"`
	// Init is InitImage where the image's own init is to be process 1, with the
	// agent beside it; else the agent is. InitArgv is that init with its
	// arguments; empty means that the guest looks for it.
	Init     string   `json:"init,omitempty"`
	InitArgv []string `json:"init_argv,omitempty"`
	// InitPatienceMS is how long commands wait for that init to finish its start.
	InitPatienceMS int64 `json:"init_patience_ms,omitempty"`
	// AuthorizedKey is the user's SSH key, authorised in the home at each start.
	AuthorizedKey *AuthorizedKey `json:"authorized_key,omitempty"`
	// Seed is random bytes for the guest's entropy pool.
	Seed []byte `json:"seed"`
	// Token admits to BulkPort: 64 characters of lower-case hex.
	Token string `json:"token"`
	// VsockToken makes the agent ask for Token at the start of each vsock
	// connection too, where others on the host than the VM's owner can connect.
	VsockToken bool `json:"vsock_token,omitempty"`
}

// InitImage is the value of Config.Init for the image's own init.
const InitImage = "image"

// AuthorizedKey is one key as authorized_keys has it: type and key, with no
// options and no comment.
type AuthorizedKey struct {
	Key         string `json:"key"`
	Fingerprint string `json:"fingerprint"` // SHA256:…
}

// ProbeReply is the line a probe guest prints before it resets.
const ProbeReply = "banger-probe: userspace reached"

// What a disk is for.
const (
	RoleRoot    = "root"    // ext4, read-only, shared: the lower layer; with OwnRoot writable, and the root itself
	RoleSystem  = "system"  // ext4: upper layer and work folder of the root overlay
	RoleWork    = "work"    // ext4: its folder "root" becomes /root
	RoleModules = "modules" // ext4, read-only, shared: the kernel's modules
	RoleSeed    = "seed"    // ext4, read-only, shared: fills a new home in place of the image's /root
)

// Disk is one block device of the guest.
type Disk struct {
	Role string `json:"role"`
	// Serial is the device's serial number; Index its place among the virtio
	// disks, used where no device has the serial.
	Serial string `json:"serial"`
	Index  int    `json:"index"`
}

// Network is how eth0 is set up. Mode none means loopback only.
type Network struct {
	Mode    string   `json:"mode"`    // user or none
	Address string   `json:"address"` // CIDR, e.g. 192.168.127.2/24
	Gateway string   `json:"gateway"`
	DNS     []string `json:"dns"`
	MTU     int      `json:"mtu"`
}

// Health is the agent's first answer.
type Health struct {
	Protocol int    `json:"protocol"`
	Build    string `json:"build"`
	BootID   string `json:"boot_id"`
	UptimeMS int64  `json:"uptime_ms"`
	// Warnings are parts of the boot that failed without stopping it.
	Warnings []string `json:"warnings,omitempty"`
	// Init is told when the image's own init is process 1.
	Init *Init `json:"init,omitempty"`
}

// Init is what the image's own init came to when its start was over.
type Init struct {
	Kind   string   `json:"kind"`             // systemd, sysvinit, busybox, openrc-init or the program's name
	State  string   `json:"state"`            // systemd's: running, degraded, …; else started
	Failed []string `json:"failed,omitempty"` // units
}

// Shutdown asks for an orderly power-off. Processes get TERM, after GraceMS
// KILL; then the file systems are flushed and unmounted. Where the image's own
// init is process 1, it does all that in its own order and time.
type Shutdown struct {
	GraceMS int64 `json:"grace_ms"`
}

// ShutdownReply says what it took.
type ShutdownReply struct {
	Killed   int      `json:"killed"` // processes that did not heed TERM
	Warnings []string `json:"warnings,omitempty"`
}

// Time moves the guest's clock. What it should show is not sent: that would be
// wrong by the time it arrives.
type Time struct {
	AdjustNano int64 `json:"adjust_nano"`
}

// TimeReply is the guest's clock, after it was moved.
type TimeReply struct {
	UnixNano int64 `json:"unix_nano"`
}

// Grow names the disk, RoleSystem or RoleWork, whose file system is to fill it.
type Grow struct {
	Role string `json:"role"`
}

// GrowReply is the size of the file system in bytes after growing.
type GrowReply struct {
	Bytes int64 `json:"bytes"`
}

// Stats is the guest's view of itself.
type Stats struct {
	MemoryTotalBytes     int64 `json:"memory_total_bytes"`
	MemoryAvailableBytes int64 `json:"memory_available_bytes"`
	AgentRSSBytes        int64 `json:"agent_rss_bytes"`
	Processes            int   `json:"processes"`
}

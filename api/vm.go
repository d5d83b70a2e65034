package api

import "time"

// Status is what a VM is doing: its record, corrected by what is observed.
type Status string

// The statuses of a VM.
const (
	StatusCreating Status = "creating"
	StatusStarting Status = "starting"
	StatusRunning  Status = "running"
	StatusPaused   Status = "paused"
	StatusStopping Status = "stopping"
	StatusStopped  Status = "stopped"
	StatusDeleting Status = "deleting"
	StatusBroken   Status = "broken"
)

// VM is one machine as list, show, create and start give it.
type VM struct {
	ID                string            `json:"id"`
	Name              string            `json:"name"`
	Status            Status            `json:"status"`
	Ready             bool              `json:"ready"`
	Labels            map[string]string `json:"labels"`
	Image             ImageRef          `json:"image"`
	Kernel            KernelRef         `json:"kernel"`
	Driver            string            `json:"driver"`
	Accelerator       string            `json:"accelerator"`
	AcceleratorReason string            `json:"accelerator_reason,omitempty"`
	Init              string            `json:"init"` // agent, image
	InitReason        string            `json:"init_reason,omitempty"`
	// InitState is what the image's own init said when its start was over:
	// running, degraded and so on; FailedUnits are its units that failed.
	InitState   string   `json:"init_state,omitempty"`
	FailedUnits []string `json:"failed_units,omitempty"`
	// Warnings are parts of the guest's boot that failed without stopping it.
	Warnings           []string `json:"warnings,omitempty"`
	RootDisk           string   `json:"root_disk"` // overlay, reflink, dm-snapshot
	RootDiskReason     string   `json:"root_disk_reason,omitempty"`
	VCPUs              int      `json:"vcpus"`
	MemoryBytes        int64    `json:"memory_bytes"`
	DiskBytes          int64    `json:"disk_bytes"`
	SystemOverlayBytes int64    `json:"system_overlay_bytes"` // room for changes; with a root disk other than overlay the whole root
	// Limits are what the VM was last started with; absent without any.
	Limits     *VMLimits    `json:"limits,omitempty"`
	Network    VMNetwork    `json:"network"`
	CreatedAt  time.Time    `json:"created_at"`
	StartedAt  *time.Time   `json:"started_at"`
	StoppedAt  *time.Time   `json:"stopped_at"`
	LastUsedAt *time.Time   `json:"last_used_at"`
	ExpiresAt  *time.Time   `json:"expires_at"`
	ExitCode   *int         `json:"exit_code"`
	Workspace  *VMWorkspace `json:"workspace"`
	// Error is why the VM is not what its owner asked for: the boot failed, the
	// VMM died, the guest panicked. Null when all is well.
	Error *Error `json:"error"`
	// AutoRemove is true for a VM the daemon deletes when its command ends.
	AutoRemove bool `json:"auto_remove,omitempty"`
	// Changed says whether the call that returned this VM changed anything.
	Changed bool `json:"changed"`
	// Pending lists what set changed that takes effect at the next start.
	Pending []string `json:"pending,omitempty"`
}

// ImageRef names the image a VM was made from.
type ImageRef struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// KernelRef names the kernel a VM boots.
type KernelRef struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// VMLimits are what a VM may take of the host at most; absent is no limit.
type VMLimits struct {
	DiskBytesPerSecond      int64 `json:"disk_bytes_per_second,omitempty"`      // of each disk, reads and writes together
	DiskOperationsPerSecond int64 `json:"disk_operations_per_second,omitempty"` // of each disk
	NetworkBytesPerSecond   int64 `json:"network_bytes_per_second,omitempty"`   // in each direction
}

// VMNetwork is how a VM reaches the world.
type VMNetwork struct {
	Mode    string   `json:"mode"`
	Address string   `json:"address"`
	DNSName string   `json:"dns_name"`
	Ports   []VMPort `json:"ports"`
}

// VMPort is one published port.
type VMPort struct {
	GuestPort   int    `json:"guest_port"`
	HostAddress string `json:"host_address"`
	HostPort    int    `json:"host_port"`
	Protocol    string `json:"protocol"`
}

// VMWorkspace says which repository was copied in.
type VMWorkspace struct {
	HostPath  string `json:"host_path"`
	GuestPath string `json:"guest_path"`
	Commit    string `json:"commit"`
}

// CreateVM asks for a new machine. Zero values mean the configured defaults.
type CreateVM struct {
	Name               string            `json:"name,omitempty"`
	Image              string            `json:"image,omitempty"`
	Pull               string            `json:"pull,omitempty"` // missing (default), always, never
	Kernel             string            `json:"kernel,omitempty"`
	VCPUs              int               `json:"vcpus,omitempty"`
	MemoryBytes        int64             `json:"memory_bytes,omitempty"`
	DiskBytes          int64             `json:"disk_bytes,omitempty"`
	SystemOverlayBytes int64             `json:"system_overlay_bytes,omitempty"`
	RootDisk           string            `json:"root_disk,omitempty"`   // auto, overlay, reflink, dm-snapshot
	Network            string            `json:"network,omitempty"`     // user, none
	Driver             string            `json:"driver,omitempty"`      // auto, qemu
	Accelerator        string            `json:"accelerator,omitempty"` // auto, kvm, tcg
	Init               string            `json:"init,omitempty"`        // auto, agent, image
	Labels             map[string]string `json:"labels,omitempty"`
	Env                []string          `json:"env,omitempty"` // K=V, kept for every command run in the VM
	Workdir            string            `json:"workdir,omitempty"`
	User               string            `json:"user,omitempty"`
	// Entrypoint is what the command of a run is handed to as arguments; with
	// ImageEntrypoint the image's own is.
	Entrypoint      []string `json:"entrypoint,omitempty"`
	ImageEntrypoint bool     `json:"image_entrypoint,omitempty"`
	NoStart         bool     `json:"no_start,omitempty"`
	AutoRemove      bool     `json:"auto_remove,omitempty"`
	RequestID       string   `json:"request_id,omitempty"`
}

// SetVM changes a VM; nil fields stay. Disks only grow.
type SetVM struct {
	VCPUs              *int   `json:"vcpus,omitempty"`
	MemoryBytes        *int64 `json:"memory_bytes,omitempty"`
	DiskBytes          *int64 `json:"disk_bytes,omitempty"`
	SystemOverlayBytes *int64 `json:"system_overlay_bytes,omitempty"`
	// Image is the image to boot from the next start on; home and system disk
	// stay. Pull is when to pull it, as at create.
	Image  string            `json:"image,omitempty"`
	Pull   string            `json:"pull,omitempty"`
	Labels map[string]string `json:"labels,omitempty"` // an empty value removes the label
}

// StopVM bounds an orderly stop. Zero means the default of ten seconds, scaled
// by the accelerator.
type StopVM struct {
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// KillVM names a signal for the VMM; empty means KILL.
type KillVM struct {
	Signal string `json:"signal,omitempty"`
}

// RenameVM gives a VM another name.
type RenameVM struct {
	Name string `json:"name"`
}

// Wait targets of GET /v1/vms/{vm}/wait.
const (
	WaitRunning = "running"
	WaitStopped = "stopped"
	WaitExit    = "exit"
)

// PruneVMs says which stopped VMs may go.
type PruneVMs struct {
	StoppedForMS int64    `json:"stopped_for_ms,omitempty"`
	Filters      []string `json:"filters,omitempty"` // label=K, label=K=V
	DryRun       bool     `json:"dry_run,omitempty"`
}

// Result is one line of a command that takes several references.
type Result struct {
	Ref     string `json:"ref"`
	ID      string `json:"id"`
	OK      bool   `json:"ok"`
	Changed bool   `json:"changed"`
	Error   *Error `json:"error"`
}

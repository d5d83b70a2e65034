package store

import (
	"encoding/json"
	"time"

	"github.com/bangervm/banger/api"
)

// VM is the durable record of a machine: what its owner wants, and what its
// last run came to. What is momentarily true is not here, but in the VM's
// handle file.
type VM struct {
	ID     string     `json:"id"`
	Name   string     `json:"name"`
	Status api.Status `json:"status"` // as last written; the VM room corrects it by what it observes

	ImageID     string            `json:"image_id"`
	ImageName   string            `json:"image_name"`
	ImageDigest string            `json:"image_digest"`
	KernelID    string            `json:"kernel_id"`
	KernelName  string            `json:"kernel_name"`
	KernelVer   string            `json:"kernel_version"`
	Labels      map[string]string `json:"labels,omitempty"`

	VCPUs              int    `json:"vcpus"`
	MemoryBytes        int64  `json:"memory_bytes"`
	DiskBytes          int64  `json:"disk_bytes"`
	SystemOverlayBytes int64  `json:"system_overlay_bytes"`
	Network            string `json:"network"`
	Driver             string `json:"driver"`               // as asked: auto, qemu
	Accelerator        string `json:"accelerator"`          // as asked: auto, kvm, tcg
	Init               string `json:"init"`                 // agent or image: what the next start uses
	InitAsked          string `json:"init_asked,omitempty"` // auto, agent, image; empty: auto
	InitReason         string `json:"init_reason,omitempty"`
	RootDisk           string `json:"root_disk"` // overlay, reflink, dm-snapshot
	RootDiskReason     string `json:"root_disk_reason,omitempty"`

	Env        []string `json:"env,omitempty"`
	Workdir    string   `json:"workdir,omitempty"`
	User       string   `json:"user,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	// ImageEntrypoint says that the image's own entrypoint is meant.
	ImageEntrypoint bool `json:"image_entrypoint,omitempty"`

	// End is what becomes of the VM when the command of its run ends, while
	// such a run is under way (api.EndStop, api.EndRemove); else empty.
	End        string `json:"end,omitempty"`
	AutoRemove bool   `json:"auto_remove,omitempty"`

	RequestID   string `json:"request_id,omitempty"`
	RequestHash string `json:"request_hash,omitempty"`

	// UsedDriver and what follows were chosen at the last start.
	UsedDriver        string `json:"used_driver,omitempty"`
	UsedAccelerator   string `json:"used_accelerator,omitempty"`
	AcceleratorReason string `json:"accelerator_reason,omitempty"`
	// Limits are those of the last start; nil without any.
	Limits *api.VMLimits `json:"limits,omitempty"`

	CreatedAt  time.Time  `json:"created_at"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	StoppedAt  *time.Time `json:"stopped_at,omitempty"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
	ExitCode   *int       `json:"exit_code,omitempty"`
	Error      *api.Error `json:"error,omitempty"`
}

// Image is the durable record of an image, under one of its names. Its files lie
// in layout.Image(ID), but for a root file system of the user's own.
type Image struct {
	ID        string            `json:"id"` // content-addressed: the hex of its digest, shortened
	Digest    string            `json:"digest"`
	Kind      string            `json:"kind"`
	SizeBytes int64             `json:"size_bytes"`
	Config    api.ImageConfig   `json:"config"`
	Source    map[string]string `json:"source"`
	CreatedAt time.Time         `json:"created_at"`

	// Root is where the root file system lies that is the user's own; empty where
	// it is ours. Files are all files of the user's own, as they were last seen.
	Root  string     `json:"root,omitempty"`
	Files []UserFile `json:"files,omitempty"`

	// What belongs to the name. An image that lost its names keeps what it had
	// with the last it got.
	Name            string `json:"name"`
	Reference       string `json:"reference"` // what was pulled under the name
	ReferenceDigest string `json:"reference_digest,omitempty"`
	Kernel          string `json:"kernel"` // name of the kernel it boots by default; empty is the default

	// Names are all its names, oldest first; they are not part of the record.
	Names []string `json:"-"`
}

// UserFile is a file of the user's own, and what tells that it changed.
type UserFile struct {
	Role    string    `json:"role"` // root, kernel, initrd, modules
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mod_time"`
	Inode   uint64    `json:"inode"`
	Device  uint64    `json:"device"`
	Digest  string    `json:"digest,omitempty"` // once it was read
}

// Kernel is the durable record of a kernel whose files lie in layout.Kernel(ID).
type Kernel struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Version   string            `json:"version"`
	Arch      string            `json:"arch"`
	Digest    string            `json:"digest"`
	SizeBytes int64             `json:"size_bytes"`
	Source    map[string]string `json:"source"`
	Warnings  []string          `json:"warnings,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
}

// Operation is the journal of one operation.
type Operation struct {
	ID         string              `json:"id"`
	Kind       string              `json:"kind"`
	Target     string              `json:"target"`
	Status     api.OperationStatus `json:"status"`
	Stage      string              `json:"stage"`
	Params     json.RawMessage     `json:"params"`
	Notes      json.RawMessage     `json:"notes,omitempty"` // what the steps wrote down for their undo
	Steps      []api.OperationStep `json:"steps"`
	CreatedAt  time.Time           `json:"created_at"`
	FinishedAt *time.Time          `json:"finished_at,omitempty"`
	Error      *api.Error          `json:"error,omitempty"`
	Result     json.RawMessage     `json:"result,omitempty"`
}

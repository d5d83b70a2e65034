package api

import "time"

// Image is one root file system that VMs can be made from.
type Image struct {
	Name      string      `json:"name"`
	Digest    string      `json:"digest"` // sha256:… of the root file system
	Kind      string      `json:"kind"`   // debian, later oci, bundle, registered, promoted
	Reference string      `json:"reference"`
	Kernel    string      `json:"kernel"`
	SizeBytes int64       `json:"size_bytes"` // as stored on disk
	CreatedAt time.Time   `json:"created_at"`
	UsedBy    []string    `json:"used_by"`
	Config    ImageConfig `json:"config"`
	// Source records what the image was made from: versions and digests.
	Source  map[string]string `json:"source,omitempty"`
	Changed bool              `json:"changed"`
}

// ImageConfig is what an image says about the commands run in it.
type ImageConfig struct {
	Env        []string `json:"env"`
	Workdir    string   `json:"workdir"`
	User       string   `json:"user"`
	Entrypoint []string `json:"entrypoint"`
	Cmd        []string `json:"cmd"`
}

// Kernel is one kernel that guests can boot.
type Kernel struct {
	Name      string            `json:"name"`
	Version   string            `json:"version"` // as uname -r says
	Arch      string            `json:"arch"`
	Digest    string            `json:"digest"` // sha256:… of the vmlinux
	SizeBytes int64             `json:"size_bytes"`
	Source    map[string]string `json:"source"`
	CreatedAt time.Time         `json:"created_at"`
	UsedBy    []string          `json:"used_by"`
	Changed   bool              `json:"changed"`
}

// CatalogEntry is one thing that can be pulled by its bare name.
type CatalogEntry struct {
	Name        string `json:"name"`
	Kind        string `json:"kind"`
	Description string `json:"description"`
	Local       bool   `json:"local"`
}

// Pull asks for an image or a kernel by name.
type Pull struct {
	Name string `json:"name"`
	// Force builds it anew though it is there.
	Force bool `json:"force,omitempty"`
}

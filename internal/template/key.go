package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/bangervm/banger/internal/vmm"
)

// kind is all that two machines must share to go on from the same guest.
type kind struct {
	HostBoot    string          `json:"host_boot"` // the processor's features and clock are the host's
	Driver      string          `json:"driver"`
	Program     file            `json:"program"`
	Version     string          `json:"version"` // of the program, which may only call another
	Banger      file            `json:"banger"`  // it says what the VMM is to be
	Kernel      file            `json:"kernel"`
	Guest       string          `json:"guest"` // the guest binary's build
	Accelerator vmm.Accelerator `json:"accelerator"`
	VCPUs       int             `json:"vcpus"`
	MemoryBytes int64           `json:"memory_bytes"`
	Cmdline     []string        `json:"cmdline"`
	Disks       []bool          `json:"disks"` // whether read-only
	MTU         int             `json:"mtu"`   // -1: no network device
}

// file tells one program or kernel from another, wherever it lies.
type file struct {
	Name    string    `json:"name"`
	Size    int64     `json:"size"`
	Changed time.Time `json:"changed"`
}

func identify(path string) (file, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return file{}, err
	}
	return file{filepath.Join(filepath.Base(filepath.Dir(path)), filepath.Base(path)), fi.Size(), fi.ModTime().UTC()}, nil
}

// kindOf is the kind of a machine that the driver's program is to run.
func (m *Manager) kindOf(driver string, v vmm.Version, spec vmm.Spec) (kind, error) {
	k := kind{
		HostBoot: m.o.HostBoot, Driver: driver, Version: v.Text, Guest: m.o.Guest,
		Accelerator: spec.Accelerator, VCPUs: spec.VCPUs, MemoryBytes: spec.MemoryBytes, Cmdline: spec.Cmdline, MTU: -1,
	}
	var err error
	if k.Program, err = identify(v.Program); err != nil {
		return k, err
	}
	if k.Banger, err = identify(m.o.Banger); err != nil {
		return k, err
	}
	if k.Kernel, err = identify(spec.Kernel); err != nil {
		return k, err
	}
	for _, d := range spec.Disks {
		k.Disks = append(k.Disks, d.ReadOnly)
	}
	if spec.Network != nil {
		k.MTU = spec.Network.MTU
	}
	return k, nil
}

// name of the folder of a kind's template.
func (k kind) name() string {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

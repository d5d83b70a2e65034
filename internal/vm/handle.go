package vm

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
)

// handle is what is momentarily true of a running machine. It is written to
// the VM's own folder before it is believed in memory, so that the next daemon
// finds what this one knew; what is missing there is rebuilt by observation.
type handle struct {
	VMID        string    `json:"vm_id"`
	KeeperPID   int       `json:"keeper_pid"`
	KeeperStart uint64    `json:"keeper_start"` // clock ticks after the host's boot: tells a recycled pid
	VMMPID      int       `json:"vmm_pid"`
	HostBoot    string    `json:"host_boot"` // the host's boot id: a handle of another boot is void
	StartedAt   time.Time `json:"started_at"`
	Driver      string    `json:"driver"`
	Accelerator string    `json:"accelerator"`
	ImageID     string    `json:"image_id,omitempty"`
	RootDisk    string    `json:"root_disk,omitempty"`
	VCPUs       int       `json:"vcpus"` // as booted; the record may say what the next start takes
	MemoryBytes int64     `json:"memory_bytes"`
	Sockets     struct {
		Keeper string `json:"keeper"`
		Guest  string `json:"guest"`
		Bulk   string `json:"bulk"`
	} `json:"sockets"`
}

const maxHandle = 64 << 10

func writeHandle(dir layout.VMDir, h handle) error {
	h.Sockets.Keeper, h.Sockets.Guest, h.Sockets.Bulk = dir.KeeperSocket(), dir.GuestSocket(), dir.BulkSocket()
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot encode handle of vm %s: %w", h.VMID, err)
	}
	// Not fsynced: after a crash of the host nothing in it is true any more.
	if err := renameio.WriteFile(dir.Handle(), b, 0o600, renameio.IgnoreUmask()); err != nil {
		return api.Errorf(diskKind(err), "cannot write handle of vm %s: %w", h.VMID, err)
	}
	return nil
}

// readHandle gives the handle of the VM; false when it is missing, corrupt or
// not this VM's, all of which mean: look for yourself.
func readHandle(dir layout.VMDir, id string) (handle, bool) {
	var h handle
	b, err := readSmall(dir.Handle())
	if err != nil || json.Unmarshal(b, &h) != nil || h.VMID != id || h.KeeperPID <= 0 {
		return handle{}, false
	}
	return h, true
}

// readExit gives the last word of a keeper that is gone.
func readExit(dir layout.VMDir) (vmm.Exit, bool) {
	var e vmm.Exit
	b, err := readSmall(dir.ExitFile())
	if err != nil || json.Unmarshal(b, &e) != nil || e.Reason == "" {
		return vmm.Exit{}, false
	}
	return e, true
}

func readSmall(path string) ([]byte, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxHandle {
		return nil, errors.New("not a small file")
	}
	return os.ReadFile(path)
}

func removeFiles(paths ...string) error {
	var errs []error
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

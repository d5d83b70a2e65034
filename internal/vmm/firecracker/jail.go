package firecracker

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/host/cgroup"
	"github.com/bangervm/banger/internal/vmm"
)

// The users that VMMs of root's become: above what systemd and the tools of
// subordinate ids give to containers and people, below what is no user any more.
const (
	firstUID = 0x7000_0000
	countUID = 0x0ff0_0000
)

// identity is a user of the host that is one machine's alone while we hold it.
type identity struct {
	uid  int
	held int // a socket
}

// claim takes an identity for the machine, mostly the same each time. What holds
// it is a name of the kernel's that goes with us, so that none is ever left over.
// nil means that we cannot make processes of other users.
func claim(id string) (*identity, error) {
	if os.Geteuid() != 0 || !mapped(firstUID, countUID) {
		return nil, nil
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	first := h.Sum32() % countUID
	for try := range uint32(64) {
		uid := firstUID + int((first+try)%countUID)
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot claim a user: %w", err)
		}
		err = unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("@banger-uid-%d", uid)})
		if err == nil {
			return &identity{uid, s}, nil
		}
		_ = unix.Close(s)
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("cannot claim user %d: %w", uid, err)
		}
	}
	return nil, errors.New("cannot claim a user: all that were tried are taken")
}

// release gives it back; it is no error on nil.
func (i *identity) release() {
	if i != nil {
		_ = unix.Close(i.held)
	}
}

// mapped says whether those users are there: not in most containers.
func mapped(first, count uint64) bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && mapHas(b, first, count)
}

func mapHas(text []byte, first, count uint64) bool {
	for line := range strings.Lines(string(text)) {
		var inside, outside, size uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err == nil && inside <= first && first+count <= inside+size {
			return true
		}
	}
	return false
}

// give makes the identity's user the owner of what is the machine's own: its
// disks, which are open, its initramfs and the folder. What all machines share it
// is only lent, by the cell.
func (i *identity) give(spec vmm.Spec, own string, disks []*os.File) error {
	for _, f := range disks {
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() {
			continue // a device is made anew in the cell
		}
		if err := f.Chown(i.uid, i.uid); err != nil {
			return err
		}
	}
	mine := []string{own, filepath.Join(own, logFIFO), filepath.Join(own, metricsFIFO)}
	if spec.Initrd != "" {
		mine = append(mine, spec.Initrd)
	}
	for _, path := range mine {
		if err := os.Lchown(path, i.uid, i.uid); err != nil {
			return err
		}
	}
	return nil
}

const (
	// spareMemory is what a group may have beside the guest's memory, in bytes: the
	// VMM's own, and the kernel's for it. An eighth of the guest's comes on top, for
	// page tables and for the disks' cached pages, which the kernel takes back.
	spareMemory = 128 << 20
	// vmIOWeight is a machine's share of a busy disk, where all else on the host has
	// 100.
	vmIOWeight = 50
)

// group makes the machine's control group. nil means that there is none to be had
// here, which is logged: the other limits hold.
func (d *Driver) group(spec vmm.Spec) (*cgroup.Group, error) {
	place, err := d.opts.Place()
	if api.KindOf(err) == api.KindUnsupported {
		d.log.Warn("this machine has no limits of a control group on memory, processes, processors and disks", "reason", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if missing := place.Missing(); slices.Contains(missing, "memory") || slices.Contains(missing, "pids") || slices.Contains(missing, "cpu") {
		d.log.Warn("this machine's control group does not limit everything", "missing", missing)
	}
	return place.Make(spec.ID, cgroup.Limits{
		MemoryBytes: spec.MemoryBytes + spec.MemoryBytes/8 + spareMemory,
		Processes:   spec.VCPUs + spareThreads,
		CPUs:        spec.VCPUs + 1, // one for the VMM's own threads
		IOWeight:    vmIOWeight,
	})
}

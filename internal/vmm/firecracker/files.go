package firecracker

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/cell"
)

// What Firecracker has of its own lies in a folder of the run folder, which is
// all of the host that it can write to beside its disks.
const (
	folder      = "vmm"
	apiSocket   = "api"
	linkSocket  = "link"
	logFIFO     = "log"
	metricsFIFO = "metrics"
)

// places are the paths as Firecracker sees them.
type places struct {
	folder         string
	kernel, initrd string
	disks          []string
}

func (p places) own(name string) string { return filepath.Join(p.folder, name) }

// placesOf names the files in a cell that holds nothing else, and what has to be
// put there. Without one the host's paths hold.
func placesOf(spec vmm.Spec, kvm string, closed bool) (places, []cell.Bind) {
	host := places{folder: filepath.Join(spec.RunDir, folder), kernel: spec.Kernel, initrd: spec.Initrd}
	for _, d := range spec.Disks {
		host.disks = append(host.disks, d.Path)
	}
	if !closed {
		return host, nil
	}
	in := places{folder: "/run", kernel: "/kernel"}
	binds := []cell.Bind{
		{From: host.folder, To: in.folder, Writable: true},
		{From: host.kernel, To: in.kernel},
		{From: kvm, To: "/dev/kvm", Writable: true, Device: true},
		{From: "/dev/urandom", To: "/dev/urandom", Device: true},
	}
	if spec.Initrd != "" {
		in.initrd = "/initrd"
		binds = append(binds, cell.Bind{From: host.initrd, To: in.initrd})
	}
	if spec.Network != nil {
		binds = append(binds, cell.Bind{From: "/dev/net/tun", To: "/dev/net/tun", Writable: true, Device: true})
	}
	for i, d := range spec.Disks {
		to := fmt.Sprintf("/disk%d", i)
		in.disks = append(in.disks, to)
		binds = append(binds, cell.Bind{From: d.Path, To: to, Writable: !d.ReadOnly, Device: d.Block})
	}
	return in, binds
}

// static says whether the program needs no other file to run, as the official
// one does.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// makeFolder makes the folder anew with its pipes: Firecracker writes its log and
// figures into them, and we no more than we want into files.
func makeFolder(runDir string) (path string, err error) {
	path = filepath.Join(runDir, folder)
	if err := os.RemoveAll(path); err != nil {
		return "", err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{logFIFO, metricsFIFO} {
		if err := unix.Mkfifo(filepath.Join(path, name), 0o600); err != nil {
			_ = os.RemoveAll(path)
			return "", fmt.Errorf("cannot make pipe %s: %w", name, err)
		}
	}
	return path, nil
}

// openFIFO opens a pipe for reading. It never ends by itself, as we are one of
// its writers too.
func openFIFO(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
}

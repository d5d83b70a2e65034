package host

import (
	"context"
	"os"
	"sync"
	"syscall"

	"github.com/bangervm/banger/api"
)

// Fake is a host for tests: it has what its fields say, and its ext4 files are
// sparse files with nothing in them. Set the fields before use.
type Fake struct {
	NumCPU    int
	Memory    int64
	Available int64
	Free      int64
	Boot      string
	Missing   map[string]bool // tools that are not there
	Clones    bool            // files can be cloned
	// Fail, when set, is asked before MakeExt4, GrowExt4, CloneExt4, OwnExt4, Signal
	// and RemoveGroup, by their names; an error is returned instead of doing it.
	Fail func(name, object string) error

	mu        sync.Mutex
	processes map[int]uint64
	signals   []FakeSignal
}

// FakeSignal is a signal that was sent.
type FakeSignal struct {
	PID    int
	Signal syscall.Signal
}

// NewFake is a roomy host with every tool.
func NewFake() *Fake {
	return &Fake{NumCPU: 8, Memory: 16 << 30, Available: 12 << 30, Free: 100 << 30, Boot: "fake-boot",
		Missing: map[string]bool{}, processes: map[int]uint64{}}
}

// CPUs, MemoryTotal, MemoryAvailable, FreeDisk and BootID give the fields.
func (f *Fake) CPUs() int                        { return f.NumCPU }
func (f *Fake) MemoryTotal() (int64, error)      { return f.Memory, nil }
func (f *Fake) MemoryAvailable() (int64, error)  { return f.Available, nil }
func (f *Fake) FreeDisk(_ string) (int64, error) { return f.Free, nil }
func (f *Fake) BootID() string                   { return f.Boot }

func (f *Fake) failing(name, object string) error {
	if f.Fail == nil {
		return nil
	}
	return f.Fail(name, object)
}

// LookTool fails for the tools in Missing.
func (f *Fake) LookTool(name string) error {
	if f.Missing[name] {
		return api.Errorf(api.KindUnavailable, "cannot find the program %s", name)
	}
	return nil
}

// MakeExt4 makes a sparse file that must not exist.
func (f *Fake) MakeExt4(_ context.Context, path string, size int64) error {
	if err := f.failing("MakeExt4", path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return api.Errorf(api.KindOf(classify(err)), "cannot make disk %s: %w", path, err)
	}
	defer func() { _ = file.Close() }()
	return file.Truncate(size)
}

// Ext4Size says that the file system is as large as its file.
func (f *Fake) Ext4Size(path string) (int64, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, api.Errorf(api.KindOf(classify(err)), "cannot read disk %s: %w", path, err)
	}
	return fi.Size(), nil
}

// GrowExt4 enlarges the file.
func (f *Fake) GrowExt4(_ context.Context, path string, size int64) error {
	if err := f.failing("GrowExt4", path); err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.Size() > size {
		return api.Errorf(api.KindInvalid, "cannot shrink disk %s from %d to %d bytes", path, fi.Size(), size)
	}
	return os.Truncate(path, size)
}

// CanClone says what Clones says.
func (f *Fake) CanClone(path, _ string) error {
	if _, err := os.Stat(path); err != nil {
		return api.Errorf(api.KindOf(classify(err)), "cannot clone %s: %w", path, err)
	}
	if !f.Clones {
		return api.Errorf(api.KindUnsupported, "cannot clone %s: its file system does not share blocks between files", path)
	}
	return nil
}

// CloneExt4 makes a sparse file that must not exist, as large as it should be.
func (f *Fake) CloneExt4(_ context.Context, from, to string, size int64) error {
	if err := f.failing("CloneExt4", to); err != nil {
		return err
	}
	if err := f.CanClone(from, ""); err != nil {
		return err
	}
	if fi, err := os.Stat(from); err != nil || fi.Size() > size {
		return api.Errorf(api.KindInvalid, "cannot make disk %s of %d bytes: the image has %d", to, size, fi.Size())
	}
	file, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return api.Errorf(api.KindOf(classify(err)), "cannot make disk %s: %w", to, err)
	}
	defer func() { _ = file.Close() }()
	return file.Truncate(size)
}

// OwnExt4 finds all as it should be.
func (f *Fake) OwnExt4(_ context.Context, path string, _ int64) error {
	return f.failing("OwnExt4", path)
}

// AddProcess makes a process exist; RemoveProcess ends it.
func (f *Fake) AddProcess(pid int, start uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.processes[pid] = start
}

// RemoveProcess ends a process that AddProcess made.
func (f *Fake) RemoveProcess(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.processes, pid)
}

// ProcessStart knows the processes of AddProcess.
func (f *Fake) ProcessStart(pid int) (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	start, ok := f.processes[pid]
	return start, ok
}

// RemoveGroup finds none.
func (f *Fake) RemoveGroup(name string) error { return f.failing("RemoveGroup", name) }

// Signal notes the signal; KILL ends the process.
func (f *Fake) Signal(pid int, start uint64, sig syscall.Signal) error {
	if err := f.failing("Signal", sig.String()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now, ok := f.processes[pid]; !ok || now != start {
		return api.Errorf(api.KindNotFound, "cannot signal process %d: it is gone", pid)
	}
	f.signals = append(f.signals, FakeSignal{pid, sig})
	if sig == syscall.SIGKILL {
		delete(f.processes, pid)
	}
	return nil
}

// Signals gives what was sent, in order.
func (f *Fake) Signals() []FakeSignal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]FakeSignal{}, f.signals...)
}

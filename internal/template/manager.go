package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
)

const (
	// makeLimit is how long making one may take: a boot, on a busy host.
	makeLimit = 3 * time.Minute
	// keepAtMost is how many there are; a further one takes the place of the one
	// that was used longest ago.
	keepAtMost = 4
	// A template's file is as large as the memory, and takes what a guest has
	// written when it has just booted: the kernel's own, and its tables, a sixtieth
	// of the memory.
	writtenBytes = 128 << 20
	tablesShare  = 60
	// spareDisk and spareMemory stay free, in bytes.
	spareDisk   = 1 << 30
	spareMemory = 512 << 20
	// memoryUnit is what QEMU rounds memory up to, in bytes.
	memoryUnit = 8 << 10
	// notAgain is how long machines boot after something went wrong with a template.
	notAgain = 10 * time.Minute
)

// Names of a template's files in its folder.
const (
	kindFile   = "kind.json"
	memoryFile = "memory"
	stateFile  = "state"
)

// halfMade is what the name of a template's folder begins with as long as it is made.
const halfMade = "new-"

// runFolder is what the name of a folder for sockets begins with.
const runFolder = "tpl-"

// Options of New.
type Options struct {
	Dir      string // the templates, one folder each; it may be emptied at any time
	Runtime  string // folder for sockets
	HostBoot string // this boot of the host; empty means no templates
	Guest    string // the guest binary's build
	Banger   string // path of our own program: what it tells a VMM to be is its own
	MAC      string // the address of a guest's network device
	Drivers  []vmm.Driver
	// Initrd writes the initramfs of a guest for that kernel (a vmlinux).
	Initrd func(path, kernel string, config guestapi.Config) error
	// FreeDisk is what may still be written below a folder, FreeMemory what
	// processes may still take, in bytes.
	FreeDisk   func(dir string) (int64, error)
	FreeMemory func() (int64, error)
	// InMemory says whether the files below a folder are in memory.
	InMemory func(dir string) bool
	Now      func() time.Time
	Log      *slog.Logger
}

// Manager keeps the templates. Its methods may be called from several goroutines.
type Manager struct {
	o       Options
	drivers map[string]vmm.Driver

	life context.Context // of what is being made
	stop context.CancelFunc
	wg   sync.WaitGroup
	one  chan struct{} // holds one while one is made

	mu     sync.Mutex
	closed bool
	making map[string]bool
	bad    map[string]time.Time // kinds that could not be made or used, and until when none is
}

// New makes a manager, and removes what is of no use any more: half-made templates,
// those of an earlier boot of the host, and what making them left. There is one
// manager at a time for its folders.
func New(o Options) *Manager {
	m := &Manager{o: o, drivers: map[string]vmm.Driver{}, one: make(chan struct{}, 1), making: map[string]bool{}, bad: map[string]time.Time{}}
	m.life, m.stop = context.WithCancel(context.Background())
	for _, d := range o.Drivers {
		m.drivers[d.Name()] = d
	}
	for _, t := range m.all() {
		if t.kind.HostBoot != o.HostBoot || strings.HasPrefix(filepath.Base(t.dir), halfMade) {
			m.remove(t.dir)
		}
	}
	left, _ := filepath.Glob(filepath.Join(o.Runtime, runFolder+"*")) // the pattern is right
	for _, dir := range left {
		m.remove(dir)
	}
	return m
}

// Close gives up what is being made.
func (m *Manager) Close(context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.wg.Wait()
	return nil
}

// For gives the template for a machine, nil where there is none.
func (m *Manager) For(ctx context.Context, driver string, spec vmm.Spec) *vmm.Template {
	k, ok := m.possible(ctx, driver, spec)
	if !ok || !m.have(k) {
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(m.dir(k), now, now) // used just now
	t := filesOf(m.dir(k))
	return &t
}

// have says whether there is a whole one of the kind.
func (m *Manager) have(k kind) bool {
	got, err := readKind(m.dir(k))
	if err != nil || got.name() != k.name() {
		return false
	}
	fi, err := os.Stat(filesOf(m.dir(k)).Memory)
	return err == nil && fi.Size() == k.MemoryBytes
}

// Booted says that a machine has booted without a template: one is made, in the
// background, for those that come after it.
func (m *Manager) Booted(ctx context.Context, driver string, spec vmm.Spec) {
	k, ok := m.possible(ctx, driver, spec)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.making[k.name()] || m.o.Now().Before(m.bad[k.name()]) || m.have(k) {
		return
	}
	m.making[k.name()] = true
	m.wg.Go(func() {
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.making, k.name())
		}()
		select {
		case m.one <- struct{}{}:
			defer func() { <-m.one }()
		case <-m.life.Done():
			return
		}
		began := time.Now()
		err := m.make(m.drivers[driver], k, spec)
		switch {
		case m.life.Err() != nil:
		case err != nil:
			m.condemn(k.name())
			m.o.Log.Warn("machines of this kind boot without a template", "kind", k.name(), "error", err)
		default:
			m.o.Log.Info("made a template", "kind", k.name(), "driver", driver, "vcpus", k.VCPUs, "memory_bytes", k.MemoryBytes,
				"seconds", time.Since(began).Seconds())
		}
	})
}

// Bad says that a machine did not come up from the template: it is removed, and
// none is made for a while.
func (m *Manager) Bad(t vmm.Template, why error) {
	dir := filepath.Dir(t.Memory)
	if filepath.Dir(dir) != m.o.Dir {
		return
	}
	m.condemn(filepath.Base(dir))
	m.o.Log.Warn("removing a template that a machine did not come up from", "kind", filepath.Base(dir), "error", why)
	m.remove(dir)
}

// condemn sees that none of the kind is made for a while: what was in the way, a
// busy host or a full disk, may be over then.
func (m *Manager) condemn(kind string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bad[kind] = m.o.Now().Add(notAgain)
}

// possible gives the kind of a machine that may have a template.
func (m *Manager) possible(ctx context.Context, driver string, spec vmm.Spec) (kind, bool) {
	d := m.drivers[driver]
	t, ok := d.(vmm.Templater)
	if spec.MemoryBytes%memoryUnit != 0 { // the file would not be as large as the memory
		return kind{}, false
	}
	if !ok || m.o.HostBoot == "" || !t.Templates(spec.Accelerator) || spec.Transport != "" && spec.Transport != guestapi.TransportSerial {
		return kind{}, false
	}
	v, err := d.Check(ctx)
	if err != nil {
		return kind{}, false
	}
	k, err := m.kindOf(driver, v, spec)
	return k, err == nil
}

func (m *Manager) dir(k kind) string { return filepath.Join(m.o.Dir, k.name()) }

func filesOf(dir string) vmm.Template {
	return vmm.Template{Memory: filepath.Join(dir, memoryFile), State: filepath.Join(dir, stateFile)}
}

// make boots a guest of the kind and publishes it.
func (m *Manager) make(d vmm.Driver, k kind, spec vmm.Spec) error {
	if err := m.room(k); err != nil {
		return err
	}
	made, err := os.MkdirTemp(m.o.Dir, halfMade) // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(made) //nolint:errcheck // what is left New removes
	if err := os.MkdirAll(m.o.Runtime, 0o700); err != nil {
		return err
	}
	run, err := os.MkdirTemp(m.o.Runtime, runFolder)
	if err != nil {
		return err
	}
	defer os.RemoveAll(run) //nolint:errcheck // sockets

	own := vmm.Spec{
		ID: "template", Name: "template", VCPUs: spec.VCPUs, MemoryBytes: spec.MemoryBytes, Accelerator: spec.Accelerator,
		Kernel: spec.Kernel, Initrd: filepath.Join(run, "initrd"), Cmdline: spec.Cmdline, Transport: spec.Transport,
		RunDir: run, LogFile: filepath.Join(run, "log"),
	}
	config := guestapi.Config{Protocol: guestapi.Protocol, Park: true, Transport: spec.Transport}
	if err := m.o.Initrd(own.Initrd, spec.Kernel, config); err != nil {
		return err
	}
	for i, disk := range spec.Disks { // the guest does not look at them
		path := filepath.Join(run, fmt.Sprint("disk", i))
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			return err
		}
		own.Disks = append(own.Disks, vmm.Disk{Path: path, Serial: disk.Serial, ReadOnly: disk.ReadOnly})
	}
	if n := spec.Network; n != nil {
		socket := filepath.Join(run, "net.sock")
		l, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		defer l.Close()
		own.Network = &vmm.NIC{Socket: socket, MAC: m.o.MAC, MTU: n.MTU}
	}
	ctx, cancel := context.WithTimeout(m.life, makeLimit)
	defer cancel()
	if err := d.(vmm.Templater).MakeTemplate(ctx, own, filesOf(made)); err != nil {
		return err
	}
	b, err := json.MarshalIndent(k, "", "\t")
	if err == nil {
		err = os.WriteFile(filepath.Join(made, kindFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return err
	}
	m.evict(keepAtMost - 1)
	m.remove(m.dir(k))
	return os.Rename(made, m.dir(k))
}

// room says with an error that there is none for one more.
func (m *Manager) room(k kind) error {
	need := int64(writtenBytes + k.MemoryBytes/tablesShare)
	if err := os.MkdirAll(m.o.Dir, 0o700); err != nil {
		return err
	}
	if m.o.InMemory(m.o.Dir) { // who only reads the holes of a file there fills them
		return api.Errorf(api.KindUnsupported, "cannot make a template: %s is in memory", m.o.Dir)
	}
	if free, err := m.o.FreeDisk(filepath.Dir(m.o.Dir)); err == nil && free < need+spareDisk {
		return api.Errorf(api.KindNoSpace, "cannot make a template: it may take %d bytes, and %d are free in %s", need, free, m.o.Dir)
	}
	if free, err := m.o.FreeMemory(); err == nil && free < need+spareMemory {
		return api.Errorf(api.KindUnavailable, "cannot make a template: it may take %d bytes of memory, and %d are free", need, free)
	}
	return nil
}

// ourName is what the folders we make are called.
var ourName = regexp.MustCompile(`^(?:new-[0-9]+|[0-9a-f]{16})$`)

// entry is one template, or what is left of one, whose kind is then empty.
type entry struct {
	dir  string
	kind kind
	used time.Time
}

// all gives them, the one used last first.
func (m *Manager) all() []entry {
	var list []entry
	entries, err := os.ReadDir(m.o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.o.Log.Warn("cannot look at the templates", "error", err)
	}
	for _, e := range entries {
		if !ourName.MatchString(e.Name()) {
			continue
		}
		t := entry{dir: filepath.Join(m.o.Dir, e.Name())}
		if k, err := readKind(t.dir); err == nil {
			t.kind = k
		}
		if fi, err := os.Stat(t.dir); err == nil {
			t.used = fi.ModTime()
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b entry) int { return b.used.Compare(a.used) })
	return list
}

// evict leaves so many, of those that are whole. Machines that go on from a removed
// one keep its memory as long as they run.
func (m *Manager) evict(leave int) {
	for _, t := range m.all() {
		if strings.HasPrefix(filepath.Base(t.dir), halfMade) {
			continue
		}
		if leave--; leave < 0 {
			m.remove(t.dir)
		}
	}
}

func (m *Manager) remove(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		m.o.Log.Warn("cannot remove a template", "dir", dir, "error", err)
	}
}

func readKind(dir string) (kind, error) {
	var k kind
	b, err := os.ReadFile(filepath.Join(dir, kindFile))
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(b, &k)
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestlink"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/qemu"
)

//go:embed setup.sh
var setup string

const (
	// bootPatience is how long a lab host may take until its agent answers; it
	// takes 4 s on an idle machine.
	bootPatience = 2 * time.Minute
	// systemdPatience is the same for one with systemd, which takes a minute.
	systemdPatience = 6 * time.Minute
	systemBytes     = 8 << 30
)

// plan is the lab host to boot.
type plan struct {
	memory int64
	vcpus  int
	carry  carry
	// systemd is process 1, with udev and sessions of its own; else banger-guest is.
	systemd bool
	// state keeps the writable disks from boot to boot; empty: this boot only.
	state string
	// cut ends the host as a power cut does.
	cut bool
}

// machine is one running lab host.
type machine struct {
	vm      vmm.Machine
	guest   *guestlink.Client
	console *consoleLog
	dir     string // ours, gone at the end
	plan    plan
}

// errHost is that the lab host itself failed, not what ran in it: the run
// may be repeated in a fresh boot.
type errHost struct{ err error }

func (e errHost) Error() string { return e.err.Error() }
func (e errHost) Unwrap() error { return e.err }

// prepare makes what a plan needs; it is done once for all boots of a plan.
func prepare(ctx context.Context, c cache, p plan) (s stock, err error) {
	if s.host, err = hostImage(ctx, c); err != nil {
		return s, err
	}
	if s.store, err = prepareStore(ctx, c); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "banger-lab-"); err != nil {
		return s, err
	}
	s.in = filepath.Join(s.dir, "in.ext4")
	if err := p.carry.disk(ctx, c, s.in, filepath.Join(s.dir, "in")); err != nil {
		return s, errors.Join(err, s.remove())
	}
	return s, nil
}

// stock is the read-only disks of a plan's boots.
type stock struct {
	host, in string
	store    store
	dir      string
}

func (s stock) remove() error { return os.RemoveAll(s.dir) }

// boot starts a lab host and makes it ready.
func boot(ctx context.Context, s stock, p plan) (*machine, error) {
	m := &machine{plan: p, console: &consoleLog{}}
	if err := m.boot(ctx, s, p); err != nil {
		m.end()
		return nil, err
	}
	return m, nil
}

func (m *machine) boot(ctx context.Context, s stock, p plan) (err error) {
	if m.dir, err = os.MkdirTemp("", "banger-labhost-"); err != nil {
		return err
	}
	writable := m.dir
	if p.state != "" {
		writable = p.state
		if err := os.MkdirAll(writable, 0o700); err != nil {
			return err
		}
	}
	system, cow := filepath.Join(writable, "system.ext4"), filepath.Join(writable, "cow.img")
	if !exists(system) {
		if err := host.New(os.Getenv).MakeExt4(ctx, system, systemBytes); err != nil {
			return err
		}
	}
	if !exists(cow) {
		if err := os.WriteFile(cow, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(cow, dataBytes); err != nil {
			return err
		}
	}
	spec := vmm.Spec{
		ID: "lab", Name: "lab", VCPUs: p.vcpus, MemoryBytes: p.memory, Accelerator: vmm.TCG,
		Kernel: s.store.kernel.VMLinux(), Initrd: filepath.Join(m.dir, "initrd"), RunDir: m.dir, LogFile: filepath.Join(m.dir, "qemu.log"),
		Disks: []vmm.Disk{
			{Path: s.host, Serial: guestapi.RoleRoot, ReadOnly: true},
			{Path: system, Serial: guestapi.RoleSystem},
			{Path: s.store.kernel.Modules(), Serial: guestapi.RoleModules, ReadOnly: true},
			{Path: s.store.disk, Serial: "data", ReadOnly: true},
			{Path: cow, Serial: "cow"},
			{Path: s.in, Serial: "in", ReadOnly: true},
		},
	}
	if err := writeInitrd(spec, s.store.kernel, p.systemd); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if m.vm, err = qemu.New(qemu.Options{}, log).Start(ctx, spec, m.console); err != nil {
		return err
	}
	m.guest = guestlink.NewClient(func(ctx context.Context) (net.Conn, error) { return m.vm.DialGuest(ctx) }, nil)
	patience := bootPatience
	if p.systemd {
		patience = systemdPatience
	}
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := m.guest.Health(first); err != nil {
		return m.blame(ctx, fmt.Errorf("the lab host does not come up: %w", err))
	}
	return m.ready(ctx, "root")
}

func writeInitrd(spec vmm.Spec, kernel layout.KernelDir, systemd bool) error {
	release, err := kernelRelease(kernel)
	if err != nil {
		return err
	}
	cfg := guestapi.Config{
		Protocol: guestapi.Protocol, VMID: spec.ID, Hostname: "lab", Network: guestapi.Network{Mode: "none"},
		Seed: make([]byte, 64), Token: strings.Repeat("0", 64), KernelRelease: release,
	}
	if systemd {
		cfg.Init, cfg.InitArgv, cfg.InitPatienceMS = guestapi.InitImage, []string{"/sbin/init"}, systemdPatience.Milliseconds()
	}
	if _, err := rand.Read(cfg.Seed); err != nil {
		return err
	}
	for i, d := range spec.Disks[:3] {
		cfg.Disks = append(cfg.Disks, guestapi.Disk{Role: d.Serial, Serial: d.Serial, Index: i})
	}
	l := layout.Layout{Cache: filepath.Dir(spec.Initrd)}
	return initramfs.Write(l, spec.Initrd, kernel.BootModules(), cfg)
}

// ready runs setup.sh for a user.
func (m *machine) ready(ctx context.Context, user string) error {
	var out bytes.Buffer
	exit, err := m.run(ctx, command{argv: []string{"sh", "-s", user}, stdin: strings.NewReader(setup), stdout: &out, stderr: &out})
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return errHost{fmt.Errorf("the lab host cannot be made ready: setup.sh gives %d: %s", exit.Code, out.String())}
	}
	return nil
}

// blame gives the error its cause where the host has died of it.
func (m *machine) blame(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	select {
	case <-m.vm.Done():
	case <-time.After(2 * time.Second): // the link breaks before the end is known
		return errHost{err}
	}
	e := m.vm.Exit()
	return errHost{fmt.Errorf("the lab host ended (%s) %s", e.Reason, e.Detail)}
}

const (
	watchEvery = 15 * time.Second
	// stillPatience is how long a host that is only busy may take to answer.
	stillPatience = 90 * time.Second
)

// watch tells of a host that stands still, which emulation on a busy machine now
// and then comes to: no processor of it runs, and nothing in it ever ends. It
// returns with ctx.
func (m *machine) watch(ctx context.Context, tell func(error)) {
	for {
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return
		}
		ask, cancel := context.WithTimeout(ctx, stillPatience)
		_, err := m.guest.Health(ask)
		cancel()
		if err != nil && ctx.Err() == nil {
			tell(m.blame(ctx, fmt.Errorf("the lab host stands still: %w", err)))
			return
		}
	}
}

// end ends the host; what is not on the state's disks by then is lost with cut.
func (m *machine) end() {
	if m.vm != nil {
		if m.plan.state != "" && !m.plan.cut {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			if _, err := m.guest.Shutdown(ctx, guestapi.Shutdown{GraceMS: 2000}); err == nil {
				select {
				case <-m.vm.Done():
				case <-ctx.Done():
				}
			}
			cancel()
		}
		m.vm.Kill() // it may have ended
		<-m.vm.Done()
	}
	os.RemoveAll(m.dir)
}

// maxConsole bounds what is kept of the console, in bytes.
const maxConsole = 1 << 20

// consoleLog keeps the end of what the lab host's console says.
type consoleLog struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*consoleLog)(nil)

func (c *consoleLog) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.b = append(c.b, p...)
	if over := len(c.b) - maxConsole; over > 0 {
		c.b = bytes.Clone(c.b[over:])
	}
	return len(p), nil
}

func (c *consoleLog) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.b)
}

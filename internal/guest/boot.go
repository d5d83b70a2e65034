package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// maxConfig is the largest boot configuration in bytes.
const maxConfig = 1 << 20

// Main is PID 1: it boots and serves, and never returns but when this process
// is not PID 1. What stops the boot is said on the console in one line, then the
// power goes off.
func Main(build string) error {
	if os.Getpid() != 1 {
		if len(os.Args) == 2 && os.Args[1] == besideArg {
			return besideMain(build)
		}
		return errors.New("cannot run: this is the init of a banger VM, not a program")
	}
	reaper := newInitSpawner()
	i := &initProcess{build: build, spawn: reaper, reaper: reaper, ready: make(chan struct{}), began: time.Now(), trace: os.Getenv("BANGER_TRACE") != ""}
	i.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	defer i.guard()
	if err := i.boot(); err != nil {
		i.fatal(err)
	}
	select {}
}

// initProcess is the state of PID 1.
type initProcess struct {
	build  string
	log    *slog.Logger
	spawn  spawner
	reaper *initSpawner // spawn, where we are PID 1 for good
	agent  *Agent
	cfg    guestapi.Config
	began  time.Time
	trace  bool

	ready chan struct{} // closed when commands may run

	system    *os.File // the top folder of the disk that takes the root's changes; a system disk's is out of the guest's sight
	initramfs *os.File // its top folder, until it is empty; nil beside another init
	disks     map[string]string
	fresh     bool // that disk is at its first boot
	named     bool // it got its names when it was made
	bulk      *bulkListener
	woken     *os.File         // the guest link's port of a guest that was parked, until it is served
	mac       net.HardwareAddr // eth0's, where the device has another

	growing sync.Mutex // the kernel refuses a second resize of a file system under way

	mu       sync.Mutex
	warnings []string

	beside *besideInit // nil where we are PID 1

	ending       atomic.Bool // the shutdown has begun
	shutdownOnce sync.Once
	shutdownDone guestapi.ShutdownReply
}

// fatal ends the machine with a reason on the console.
func (i *initProcess) fatal(err error) {
	fmt.Fprintf(os.Stderr, "\nbanger-guest: %v\n", err)
	unix.Sync()
	for {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		time.Sleep(time.Second)
	}
}

// guard turns a panic of the goroutine that defers it into an end with a reason.
func (i *initProcess) guard() {
	if p := recover(); p != nil {
		fmt.Fprintf(os.Stderr, "\n%s\n", debug.Stack())
		if i.beside != nil { // the machine is not ours to end
			i.warn(fmt.Errorf("the agent panicked: %v", p))
			return
		}
		i.fatal(fmt.Errorf("cannot go on: panic: %v", p))
	}
}

// run starts a goroutine that lives as long as the machine.
func (i *initProcess) run(fn func()) {
	go func() {
		defer i.guard()
		fn()
	}()
}

func (i *initProcess) warn(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.warnings) < 20 {
		i.warnings = append(i.warnings, err.Error())
	}
	fmt.Fprintf(os.Stderr, "banger-guest: %v\n", err)
}

func (i *initProcess) step(name string) {
	if i.trace {
		fmt.Fprintf(os.Stderr, "banger-guest: %6.1f ms  %s\n", float64(time.Since(i.began).Microseconds())/1000, name)
	}
}

func (i *initProcess) boot() error {
	if err := mountFirst(); err != nil {
		return err
	}
	cfg, err := readConfig(guestapi.ConfigPath)
	if err != nil {
		return err
	}
	i.cfg = cfg
	if cfg.Probe {
		fmt.Fprintln(os.Stdout, guestapi.ProbeReply)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		return errors.New("cannot reset after the probe")
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	missing := all
	if cfg.Park {
		if cfg, missing, err = i.park(cfg); err != nil {
			return err
		}
		i.cfg = cfg
	} else {
		_ = reseed(cfg.Seed) // without it the numbers are the kernel's own
	}
	i.step("configuration")
	if err := loadBootModules(cfg.Transport, missing); err != nil {
		return err
	}
	i.step("modules")

	ctx := context.Background() // PID 1 ends with the machine
	if cfg.Init != guestapi.InitImage {
		i.run(func() { i.reaper.run(ctx) })
		i.run(i.signals)
		i.newAgent()
		if err := i.serveLink(ctx); err != nil {
			return err
		}
	}

	if i.disks, err = findDisks("/sys/block", cfg.Disks); err != nil {
		return err
	}
	if err := i.mountRoot(); err != nil {
		return err
	}
	i.step("root")
	if err := mountAPI(i.fresh); err != nil {
		i.warn(err)
	}
	i.step("api file systems")
	// A new home waits for its disk; the rest has the processor meanwhile.
	home := make(chan struct{})
	i.run(func() {
		defer close(home)
		if err := i.mountHome(); err != nil {
			i.warn(err)
		}
		i.step("home")
	})
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"network", func() error { return setupNetwork(cfg.Network, i.mac) }},
		{"modules disk", i.mountModules},
		{"names", i.writeNames},
		{"limits", setLimits},
	} {
		if err := part.do(); err != nil {
			i.warn(err)
		}
		i.step(part.name)
	}
	<-home
	if cfg.Init == guestapi.InitImage {
		return i.handOver()
	}
	close(i.ready)
	i.step("ready")
	i.later()
	return nil
}

// loadBootModules loads what is needed to find the disks, but what wanted does not
// want.
func loadBootModules(t guestapi.Transport, wanted func(module string) bool) error {
	for _, list := range []string{guestapi.LoadAlways, guestapi.LoadAlways + "." + string(t)} {
		if err := loadModules(guestapi.ModulesPath, list, wanted); err != nil {
			return err
		}
	}
	return nil
}

// firstCommand is how long the first command has the machine for itself: one
// that was waiting for the boot ends within it.
const firstCommand = 300 * time.Millisecond

// later does what no command waits for. The host grows disks before a start, so
// that growing them here seldom finds anything to do.
func (i *initProcess) later() {
	// Ping needs no privilege, as on any Debian with systemd.
	_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
	time.Sleep(firstCommand)
	if i.ending.Load() {
		return
	}
	if err := i.listenBulk(); err != nil { // until then bulk streams go by the guest link
		i.warn(err)
	}
	if i.initramfs != nil {
		if err := i.leaveInitramfs(); err != nil {
			i.warn(err)
		}
	}
	for _, role := range []string{guestapi.RoleSystem, guestapi.RoleWork} {
		if i.disks[role] == "" {
			continue
		}
		if _, err := i.grow(role); err != nil && !i.ending.Load() { // then the disks are read-only
			i.warn(err)
		}
	}
}

func (i *initProcess) newAgent() {
	bootID, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	i.agent = NewAgent(Options{
		Build: i.build, BootID: strings.TrimSpace(string(bootID)),
		Env: i.cfg.Env, Workdir: i.cfg.Workdir, User: i.cfg.User,
		Ready: i.ready, spawn: i.spawn,
		System: System{
			Shutdown: func(ctx context.Context, s guestapi.Shutdown) (guestapi.ShutdownReply, func()) {
				if i.beside != nil {
					return i.beside.shutdown(s), func() {}
				}
				return i.shutdown(s), i.powerOff
			},
			Init: func() *guestapi.Init {
				if i.beside == nil {
					return nil
				}
				return &i.beside.came
			},
			Sync:    unix.Sync,
			SetTime: setTime,
			Grow:    i.grow,
			Warnings: func() []string {
				i.mu.Lock()
				defer i.mu.Unlock()
				return append([]string(nil), i.warnings...)
			},
		},
	}, i.log)
}

// serveLink answers on the guest link.
func (i *initProcess) serveLink(ctx context.Context) error {
	if i.cfg.Transport == guestapi.TransportSerial {
		i.run(func() { i.agent.serveStream(ctx, i.log, i.openLink) })
		return nil
	}
	vsock, err := listenVsock(guestapi.VsockPort)
	if err != nil {
		return fmt.Errorf("cannot listen for the host: %w", err)
	}
	var l net.Listener = vsock
	if i.cfg.VsockToken {
		l = newBulkListener(vsock, i.cfg.Token)
	}
	i.run(func() {
		i.fatal(fmt.Errorf("cannot go on: the guest link ended: %w", i.agent.Serve(l)))
	})
	return nil
}

// listenBulk serves the bulk way, on eth0's address only.
func (i *initProcess) listenBulk() error {
	if i.cfg.Network.Mode != "user" || i.cfg.Token == "" {
		return nil
	}
	prefix, err := netip.ParsePrefix(i.cfg.Network.Address)
	if err != nil {
		return nil // setupNetwork said so
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(prefix.Addr(), guestapi.BulkPort).String())
	if err != nil {
		return fmt.Errorf("cannot listen for bulk streams: %w", cause(err))
	}
	i.bulk = newBulkListener(l, i.cfg.Token)
	i.run(func() { _ = i.agent.Serve(i.bulk) })
	return nil
}

// readConfig reads the boot configuration.
func readConfig(path string) (guestapi.Config, error) {
	b, err := readRegular(path, maxConfig)
	if err != nil {
		return guestapi.Config{}, fmt.Errorf("cannot read the boot configuration: %w", err)
	}
	return parseConfig(b)
}

func parseConfig(b []byte) (guestapi.Config, error) {
	var cfg guestapi.Config
	if err := json.Unmarshal(b, &cfg); err != nil {
		return cfg, fmt.Errorf("cannot read the boot configuration: %w", err)
	}
	return checkConfig(cfg)
}

// checkConfig refuses what no guest can be, and fills in what is left out.
func checkConfig(cfg guestapi.Config) (guestapi.Config, error) {
	switch {
	case cfg.Protocol != guestapi.Protocol:
		return cfg, fmt.Errorf("cannot boot: the host speaks protocol %d, this guest %d", cfg.Protocol, guestapi.Protocol)
	case strings.ContainsAny(cfg.Hostname, "\n\t /\x00") || len(cfg.Hostname) > 64:
		return cfg, fmt.Errorf("cannot boot: %q is no host name", cfg.Hostname)
	case strings.ContainsAny(cfg.KernelRelease, "/\x00") || cfg.KernelRelease == "." || cfg.KernelRelease == "..":
		return cfg, fmt.Errorf("cannot boot: %q is no kernel release", cfg.KernelRelease)
	case cfg.Transport == "":
		cfg.Transport = guestapi.TransportSerial
	case cfg.Transport != guestapi.TransportSerial && cfg.Transport != guestapi.TransportVsock:
		return cfg, fmt.Errorf("cannot boot: this guest knows no transport %q", cfg.Transport)
	}
	return cfg, nil
}

// setLimits lets commands open more files than the kernel's default for PID 1.
// Set with the syscall package, the limit is also what children get.
func setLimits() error {
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 16384, Max: 524288})
	if err != nil {
		return fmt.Errorf("cannot raise the limit of open files: %w", err)
	}
	return nil
}

// openPort gives the guest link's port once a host is at its other end.
func openPort(ctx context.Context) (io.ReadWriteCloser, error) {
	path, err := findPort(ctx, "/sys/class/virtio-ports", guestapi.PortName)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile("/dev/"+path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := awaitHost(ctx, f, 50*time.Millisecond); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// awaitHost returns once a host is at the port's other end, at most so much later.
func awaitHost(ctx context.Context, f *os.File, late time.Duration) error {
	for pause := time.Millisecond; ; pause = min(2*pause, late) {
		// Without a host a read ends at once, and only poll tells that from
		// the end of a session; nothing wakes us when a host comes.
		connected := false
		err := control(f, func(fd int) error {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			_, err := unix.Poll(fds, 0)
			connected = fds[0].Revents&unix.POLLHUP == 0
			return err
		})
		if err == nil && connected {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// findPort waits for the virtio-serial port of that name.
func findPort(ctx context.Context, dir, name string) (string, error) {
	for {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			got, err := os.ReadFile(dir + "/" + e.Name() + "/name")
			if err == nil && strings.TrimSpace(string(got)) == name {
				return e.Name(), nil
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

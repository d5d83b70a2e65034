package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// besideInit is the part of the agent that deals with an init that is not us.
type besideInit struct {
	i    *initProcess
	came guestapi.Init // set before commands may run

	once  sync.Once
	done  guestapi.ShutdownReply
	ours  atomic.Bool   // a shutdown was asked for through us
	clean chan struct{} // closed when the system disk was made read-only
}

// besideMain is the agent beside the image's init. It never returns but with an
// error, before it serves.
func besideMain(build string) error {
	i := &initProcess{build: build, spawn: &hostSpawner{}, ready: make(chan struct{}), began: time.Now()}
	i.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	i.system = os.NewFile(fdSystem, "system")
	f := os.NewFile(fdHandedOver, "handed-over")
	b, err := io.ReadAll(io.LimitReader(f, 2*maxConfig))
	_ = f.Close()
	var h handedOver
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		return fmt.Errorf("cannot read what was handed over: %w", err)
	}
	syscall.CloseOnExec(fdSystem)
	i.cfg, i.disks, i.warnings = h.Config, h.Disks, h.Warnings
	i.beside = &besideInit{i: i, clean: make(chan struct{})}
	// Those who end all processes mean others. Caught, not ignored, so that
	// commands have the defaults.
	signal.Notify(make(chan os.Signal, 8), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	if err := setLimits(); err != nil {
		i.warn(err)
	}
	i.newAgent()
	notes := listenNotes(notifySocket)
	if err := i.serveLink(context.Background()); err != nil {
		return err
	}
	i.run(i.beside.watchRoot)
	i.beside.await(notes)
	close(i.ready)
	i.later()
	select {}
}

// listenNotes opens the socket on which systemd says that its start is over. Nil
// means that nothing will be heard.
func listenNotes(path string) *net.UnixConn {
	_ = os.Remove(path)
	// Root's only. The mode of a socket before bind is, in Linux, that of its
	// file; a umask would be everybody's in this process.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "unixgram", path)
	if err != nil {
		return nil
	}
	return conn.(*net.UnixConn)
}

// await waits until the image's init is there and, where it can say so, has
// finished its start.
func (b *besideInit) await(notes *net.UnixConn) {
	patience := time.Duration(b.i.cfg.InitPatienceMS) * time.Millisecond
	deadline := time.Now().Add(patience)
	var kind string
	for {
		if kind = initKind("/proc/1/exe"); kind != "" || time.Now().After(deadline) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.came = guestapi.Init{Kind: kind, State: "started"}
	if kind != initSystemd {
		if notes != nil {
			_ = notes.Close()
		}
		return
	}
	if !readyNote(notes, deadline) {
		b.i.warn(fmt.Errorf("the image's init has not finished its start within %s", patience))
	}
	b.came.State, b.came.Failed = systemdState()
}

// readyNote waits for systemd's word that its start is over.
func readyNote(notes *net.UnixConn, deadline time.Time) bool {
	if notes == nil {
		return false
	}
	defer notes.Close()
	_ = notes.SetReadDeadline(deadline)
	buf := make([]byte, 4096)
	for {
		n, err := notes.Read(buf)
		if err != nil {
			return false
		}
		for line := range bytes.Lines(buf[:n]) {
			if string(bytes.TrimSpace(line)) == "READY=1" {
				return true
			}
		}
	}
}

// The inits that are known to us.
const (
	initSystemd = "systemd"
	initSysV    = "sysvinit"
	initBusybox = "busybox"
	initOpenRC  = "openrc-init"
)

// initKind says what PID 1 is; empty as long as it is still us.
func initKind(exe string) string {
	target, err := os.Readlink(exe)
	if err != nil {
		return ""
	}
	own, err := os.Readlink("/proc/self/exe")
	if err == nil && own == target {
		return ""
	}
	switch name := filepath.Base(strings.TrimSuffix(target, " (deleted)")); name {
	case "systemd", "systemd-shutdown", "systemd-executor":
		return initSystemd
	case "init":
		return initSysV
	case "busybox", "busybox.static":
		return initBusybox
	default:
		return name
	}
}

// systemdState asks systemd how its start ended, and which units failed.
func systemdState() (state string, failed []string) {
	state = strings.TrimSpace(output("systemctl", "is-system-running"))
	if state == "running" || state == "" {
		return state, nil
	}
	for line := range strings.Lines(output("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")) {
		if f := strings.Fields(line); len(f) > 0 && len(failed) < 50 {
			failed = append(failed, f[0])
		}
	}
	return state, failed
}

// maxOutput is how much of a program's output is read, in bytes.
const maxOutput = 64 << 10

// output runs a program of the image and gives what it wrote; what goes wrong
// gives less.
func output(name string, args ...string) string {
	path, err := lookPath(name, defaultPath, "/")
	if err != nil {
		return ""
	}
	r, w, err := os.Pipe()
	if err != nil {
		return ""
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		_ = w.Close()
		return ""
	}
	defer null.Close()
	var host hostSpawner
	c, err := host.spawn(path, slices.Concat([]string{name}, args), &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath, "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="},
		Files: []uintptr{null.Fd(), w.Fd(), w.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	_ = w.Close()
	if err != nil {
		return ""
	}
	_ = r.SetReadDeadline(time.Now().Add(30 * time.Second))
	b, _ := io.ReadAll(io.LimitReader(r, maxOutput))
	select {
	case <-c.done:
	case <-time.After(time.Second):
		_ = host.signal(c.pid, syscall.SIGKILL)
		<-c.done
	}
	return string(b)
}

// shutdown asks the image's init to power off and returns when the disks are
// clean: when it has made the root read-only at the end of its own shutdown. An
// init that cannot be asked is gone past.
func (b *besideInit) shutdown(s guestapi.Shutdown) guestapi.ShutdownReply {
	b.once.Do(func() {
		b.ours.Store(true)
		b.i.agent.hangUp()
		if err := powerOffBy(initKind("/proc/1/exe")); err != nil {
			b.done.Warnings = append(b.done.Warnings, err.Error())
			b.done.Killed = b.endAll(min(max(time.Duration(s.GraceMS)*time.Millisecond, 0), maxGrace))
			for _, err := range b.i.cleanDisks() {
				b.done.Warnings = append(b.done.Warnings, err.Error())
			}
			go b.i.powerOff()
			return
		}
		<-b.clean
	})
	return b.done
}

// powerOffBy asks an init of that kind to power the machine off.
func powerOffBy(kind string) error {
	switch kind {
	case initSystemd:
		return syscall.Kill(1, syscall.Signal(rtmin+4))
	case initBusybox:
		return syscall.Kill(1, syscall.SIGUSR2)
	case initSysV:
		if err := askSysV("/run/initctl", '0'); err == nil {
			return nil
		}
	case initOpenRC:
		if run("openrc-shutdown", "--poweroff", "now") {
			return nil
		}
	}
	if run("poweroff") {
		return nil
	}
	return fmt.Errorf("the image's init, %s, has no way to be asked for a power-off", kind)
}

func run(name string, args ...string) bool {
	path, err := lookPath(name, defaultPath, "/")
	if err != nil {
		return false
	}
	var host hostSpawner
	c, err := host.spawn(path, slices.Concat([]string{name}, args), &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath}, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return false
	}
	select {
	case ws := <-c.done:
		return ws.ExitStatus() == 0
	case <-time.After(10 * time.Second):
		return true // it is at it
	}
}

// sysvRequest is struct init_request of sysvinit's initreq.h: a change of the
// runlevel.
func sysvRequest(level byte) []byte {
	const magic, runlevel, size = 0x03091969, 1, 384
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b, magic)
	binary.NativeEndian.PutUint32(b[4:], runlevel)
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	return b
}

// askSysV asks sysvinit for a runlevel, by its pipe: struct init_request of
// initreq.h.
func askSysV(path string, level byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(sysvRequest(level))
	return err
}

// endAll ends all processes but init and us, for an init that cannot be asked.
func (b *besideInit) endAll(grace time.Duration) int {
	const rest = 2 // init and we
	_ = syscall.Kill(-1, syscall.SIGTERM)
	_ = syscall.Kill(-1, syscall.SIGCONT)
	for end := time.Now().Add(grace); countProcesses() > rest && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	killed := countProcesses() - rest
	_ = syscall.Kill(-1, syscall.SIGKILL)
	return max(killed, 0)
}

// watchRoot waits for the init's shutdown to make the root read-only, and does
// the same to the system disk below it, which the init cannot see. Power goes off
// a moment later.
func (b *besideInit) watchRoot() {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer f.Close()
	for {
		data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err != nil {
			return
		}
		if rootIsReadOnly(data) && (b.ours.Load() || shuttingDown()) {
			break
		}
		// The kernel wakes us at each change of a mount.
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
	if b.i.system.Chdir() == nil {
		_ = unix.Mount("", ".", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	unix.Sync()
	close(b.clean)
}

// shuttingDown says that PID 1 is in the last part of a shutdown.
func shuttingDown() bool {
	comm, err := os.ReadFile("/proc/1/comm")
	return err == nil && strings.HasPrefix(string(comm), "systemd-shutdow")
}

// rootIsReadOnly looks for the mount of / in a mountinfo.
func rootIsReadOnly(mountinfo []byte) bool {
	readOnly := false
	for line := range strings.Lines(string(mountinfo)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[4] != "/" {
			continue
		}
		super := f[len(f)-1]
		readOnly = hasOption(f[5], "ro") || hasOption(super, "ro") // the last one is on top
	}
	return readOnly
}

func hasOption(list, want string) bool {
	return slices.Contains(strings.Split(list, ","), want)
}

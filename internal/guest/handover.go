package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// besideArg makes our program the agent beside the image's own init.
const besideArg = "beside"

// besideName is the agent's name among the processes. systemd leaves those
// alone whose name begins with @ and who belong to root, also in the killing at
// the very end of a shutdown: the convention for what a root file system needs
// (systemd.io/ROOT_STORAGE_DAEMONS).
const besideName = "@banger-guest"

// The descriptors the agent inherits beside its stdio.
const (
	fdHandedOver = 3 // what is handed over, as JSON
	fdSystem     = 4 // the system disk's top folder
)

// notifySocket is where a systemd that is PID 1 says that its start is over.
const notifySocket = "/run/banger-init.sock"

// handedOver is what PID 1 tells the agent when it makes way for the image's init.
type handedOver struct {
	Config   guestapi.Config   `json:"config"`
	Disks    map[string]string `json:"disks"`
	Warnings []string          `json:"warnings,omitempty"`
}

// handOver starts the agent as a process of its own and becomes the image's
// init. It returns only with an error.
func (i *initProcess) handOver() error {
	argv, err := findInit("/", i.cfg.InitArgv)
	if err != nil {
		return err
	}
	for _, do := range []func() error{
		func() error { return settleNetwork("/run", i.cfg.Network) },
		func() error { return settleDisks("/etc", i.fresh) },
	} {
		if err := do(); err != nil {
			i.warn(err)
		}
	}
	if err := i.startBeside(); err != nil {
		return fmt.Errorf("cannot start the agent beside %s: %w", argv[0], err)
	}
	if err := i.leaveInitramfs(); err != nil {
		i.warn(err)
	}
	i.step("handing over to " + argv[0])
	env := []string{"PATH=" + defaultPath, "HOME=/", "TERM=linux", "NOTIFY_SOCKET=" + notifySocket}
	return fmt.Errorf("cannot run the image's init %s: %w", argv[0], cause(syscall.Exec(argv[0], argv, env)))
}

// findInit is the init to run, with its arguments: the one that is wanted, else
// one that the image has below root.
func findInit(root string, wanted []string) ([]string, error) {
	if len(wanted) > 0 {
		if err := executable(filepath.Join(root, wanted[0])); err != nil {
			return nil, fmt.Errorf("cannot run the image's init %s: %w; --init agent does without", wanted[0], err)
		}
		return wanted, nil
	}
	places := []string{"/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/sbin/openrc-init", "/bin/init", "/init"}
	for _, path := range places {
		if executable(filepath.Join(root, path)) == nil {
			return []string{path}, nil
		}
	}
	return nil, fmt.Errorf("cannot run the image's init: it has none (looked for %s); --init agent does without", strings.Join(places, ", "))
}

// startBeside starts the agent: in a session and a cgroup of its own, so that no
// init takes it for a process of its.
func (i *initProcess) startBeside() error {
	i.mu.Lock()
	h := handedOver{Config: i.cfg, Disks: i.disks, Warnings: i.warnings}
	i.mu.Unlock()
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("banger", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "handed-over")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{besideName, besideArg}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath}, Files: []uintptr{0, 1, 2, f.Fd(), i.system.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	if err := ownGroup(pid); err != nil {
		i.warn(fmt.Errorf("cannot give the agent a cgroup of its own: %w", err))
	}
	// sysvinit's way to spare a process.
	if err := writeRun("/run", "sendsigs.omit.d/banger", strconv.Itoa(pid)+"\n"); err != nil {
		i.warn(err)
	}
	return nil
}

// ownGroup moves a process out of the root group, whose processes systemd takes
// into its own scope.
func ownGroup(pid int) error {
	const group = "/sys/fs/cgroup/banger"
	if err := unix.Mkdir(group, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0)
}

// settleNetwork tells what may manage networks in the image that eth0 is set up
// already, and how: udev keeps its name, systemd-networkd sets up the same,
// ifupdown and NetworkManager leave it alone. All of it lies in /run, none in the
// image or on a disk.
func settleNetwork(run string, n guestapi.Network) error {
	errs := []error{
		os.MkdirAll(filepath.Join(run, "udev/rules.d"), 0o755),
		replaceLink("/dev/null", filepath.Join(run, "udev/rules.d/80-net-setup-link.rules")),
	}
	if n.Mode != "user" {
		return errors.Join(errs...)
	}
	var unit strings.Builder
	fmt.Fprintf(&unit, "# banger: as the machine was started with\n[Match]\nName=eth0\n\n[Link]\nMTUBytes=%d\n\n[Network]\nDHCP=no\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nKeepConfiguration=yes\nAddress=%s\nGateway=%s\n",
		n.MTU, n.Address, n.Gateway)
	for _, dns := range n.DNS {
		fmt.Fprintf(&unit, "DNS=%s\n", dns)
	}
	errs = append(errs,
		writeRun(run, "systemd/network/00-banger.network", unit.String()),
		writeRun(run, "NetworkManager/conf.d/00-banger.conf", "[keyfile]\nunmanaged-devices=interface-name:eth0\n"),
		writeRun(run, "network/ifstate", "lo=lo\neth0=eth0\n"),
		writeRun(run, "network/ifstate.lo", "lo\n"),
		writeRun(run, "network/ifstate.eth0", "eth0\n"),
	)
	return errors.Join(errs...)
}

func replaceLink(target, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}

func writeRun(run, name, text string) error {
	path := filepath.Join(run, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// settleDisks takes out of the image's fstab what waits for disks that this
// machine does not have: an init would wait for them, then give up the boot. Once
// the machine has run, fstab is its user's.
func settleDisks(etc string, fresh bool) error {
	if !fresh {
		return nil
	}
	// Older inits read what is mounted in mtab; containers have none.
	if err := os.Symlink("../proc/self/mounts", filepath.Join(etc, "mtab")); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if _, err := os.Lstat(filepath.Join(etc, "fstab")); err != nil {
		return nil
	}
	return update(etc, etc, "fstab", withoutDisks)
}

// noDisk begins each line that withoutDisks took out.
const noDisk = "# banger: this machine has no such disk: "

func withoutDisks(old []byte) []byte {
	var b strings.Builder
	for line := range strings.Lines(string(old)) {
		f := strings.Fields(line)
		if len(f) >= 3 && !strings.HasPrefix(f[0], "#") && (onDisk(f[0]) || f[1] == "/" || f[1] == homePath) {
			b.WriteString(noDisk)
		}
		b.WriteString(line)
	}
	return []byte(b.String())
}

// onDisk says whether a source of fstab is a block device.
func onDisk(source string) bool {
	for _, prefix := range []string{"UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID=", "/dev/"} {
		if strings.HasPrefix(source, prefix) {
			return true
		}
	}
	return false
}

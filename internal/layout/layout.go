package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/bangervm/banger/api"
)

// maxSocket is the longest path a Unix socket may have on Linux, sun_path
// being 108 bytes with its closing zero.
const maxSocket = 107

// Layout holds the four folders everything of ours lies in, absolute.
type Layout struct {
	Config  string // config.toml: the user's, never written by us
	State   string // durable: store, images, kernels, disks
	Cache   string // may be deleted at any time while no daemon runs
	Runtime string // sockets; gone after a reboot
	// Root is BANGER_ROOT where it is set.
	Root string
}

// Resolve finds the folders from the environment: all under BANGER_ROOT, else
// the XDG folders. It creates nothing; Ensure does.
func Resolve(getenv func(string) string, uid int) (Layout, error) {
	var l Layout
	tmp := getenv("TMPDIR")
	if tmp == "" {
		tmp = "/tmp"
	}
	if root := getenv("BANGER_ROOT"); root != "" {
		abs, err := filepath.Abs(root)
		if err != nil {
			return l, api.Errorf(api.KindInvalid, "cannot use BANGER_ROOT %q: %w", root, err)
		}
		l = Layout{
			Config: filepath.Join(abs, "config"), State: filepath.Join(abs, "state"),
			Cache: filepath.Join(abs, "cache"), Runtime: filepath.Join(abs, "run"), Root: abs,
		}
	} else {
		home := getenv("HOME")
		xdg := func(key, fallback string) (string, error) {
			if d := getenv(key); filepath.IsAbs(d) {
				return filepath.Join(d, "banger"), nil
			}
			if !filepath.IsAbs(home) {
				return "", api.Errorf(api.KindInvalid, "cannot find a folder for banger: neither %s nor HOME is an absolute path", key).
					WithHint("export BANGER_ROOT=/var/tmp/banger")
			}
			return filepath.Join(home, fallback, "banger"), nil
		}
		var err error
		if l.Config, err = xdg("XDG_CONFIG_HOME", ".config"); err != nil {
			return l, err
		}
		if l.State, err = xdg("XDG_STATE_HOME", ".local/state"); err != nil {
			return l, err
		}
		if l.Cache, err = xdg("XDG_CACHE_HOME", ".cache"); err != nil {
			return l, err
		}
		if d := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
			l.Runtime = filepath.Join(d, "banger")
		} else {
			l.Runtime = shortRuntime(tmp, uid, l.State)
		}
	}
	if longest := l.VM("0123456789abcdef").KeeperSocket(); len(longest) > maxSocket {
		l.Runtime = shortRuntime(tmp, uid, l.State)
		if longest = l.VM("0123456789abcdef").KeeperSocket(); len(longest) > maxSocket {
			return l, api.Errorf(api.KindInvalid, "cannot place sockets: %s is %d bytes long, a socket path holds %d", longest, len(longest), maxSocket).
				WithHint("export TMPDIR=/tmp")
		}
	}
	return l, nil
}

// shortRuntime is a runtime folder whose name tells roots and users apart.
func shortRuntime(tmp string, uid int, state string) string {
	sum := sha256.Sum256([]byte(state))
	return filepath.Join(tmp, fmt.Sprintf("banger-%d-%s", uid, hex.EncodeToString(sum[:4])))
}

// Ensure creates the folders of State, Cache and Runtime with mode 0700 and
// checks that they are ours: real folders, owned by us, closed to others,
// writable. Config is the user's and may be missing.
func (l Layout) Ensure() error {
	for _, dir := range []string{
		l.State, l.Images(), l.Kernels(), l.VMs(), l.Staging(), l.Cache, l.Runtime, filepath.Join(l.Runtime, "vm"),
	} {
		if err := ensureDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func ensureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return api.Errorf(kindOf(err), "cannot create folder %s: %w", dir, err).WithHint("export BANGER_ROOT=/var/tmp/banger-$USER")
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return api.Errorf(kindOf(err), "cannot look at folder %s: %w", dir, err)
	}
	if !fi.IsDir() {
		return api.Errorf(api.KindDenied, "cannot use %s: it is not a folder", dir)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return api.Errorf(api.KindDenied, "cannot use folder %s: it belongs to user %d, not to %d", dir, st.Uid, os.Geteuid()).
			WithHint("export BANGER_ROOT=/var/tmp/banger-$USER")
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return api.Errorf(kindOf(err), "cannot close folder %s to others: %w", dir, err)
		}
	}
	if err := syscall.Access(dir, 2 /* W_OK */); err != nil {
		return api.Errorf(kindOf(err), "cannot write to folder %s: %w", dir, err).WithHint("export BANGER_ROOT=/var/tmp/banger-$USER")
	}
	return nil
}

func kindOf(err error) api.Kind {
	switch {
	case os.IsPermission(err), errors.Is(err, syscall.EROFS):
		return api.KindDenied
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.KindNoSpace
	}
	return api.KindInternal
}

// The files of the daemon.

func (l Layout) ConfigFile() string      { return filepath.Join(l.Config, "config.toml") }
func (l Layout) Database() string        { return filepath.Join(l.State, "banger.db") }
func (l Layout) DaemonLock() string      { return filepath.Join(l.State, "daemon.lock") }         // flock, held while a daemon runs
func (l Layout) DaemonStartLock() string { return filepath.Join(l.Runtime, "daemon.start.lock") } // flock, held by the command that starts a daemon
func (l Layout) DaemonLog() string       { return filepath.Join(l.State, "daemon.log") }
func (l Layout) DaemonSocket() string    { return filepath.Join(l.Runtime, "daemon.sock") }
func (l Layout) Images() string          { return filepath.Join(l.State, "images") }
func (l Layout) Kernels() string         { return filepath.Join(l.State, "kernels") }
func (l Layout) VMs() string             { return filepath.Join(l.State, "vms") }

// Staging is where things are made before they are renamed into place; what a
// starting daemon finds here is half-made and deleted.
func (l Layout) Staging() string { return filepath.Join(l.State, "staging") }

// ProbeCache keeps what was found out about that driver's VMM on this host.
func (l Layout) ProbeCache(driver string) string {
	return filepath.Join(l.Cache, "probe-"+driver+".json")
}

// Firecracker is the program that was fetched, if one was.
func (l Layout) Firecracker() string { return filepath.Join(l.State, "firecracker", "firecracker") }

// Blobs holds what registries gave, by digest, whole or in part. It is in the
// cache because all of it can be had again: losing it costs time, never an image.
func (l Layout) Blobs() string { return filepath.Join(l.Cache, "blobs") }

// Templates holds guests that were booted before, for machines to go on from.
func (l Layout) Templates() string { return filepath.Join(l.Cache, "templates") }

// Catalogs holds the configured catalogs as they were last read.
func (l Layout) Catalogs() string { return filepath.Join(l.Cache, "catalogs") }

// SSHKey is the private key that is authorised in every VM, made on first need;
// its public half is beside it, with .pub.
func (l Layout) SSHKey() string { return filepath.Join(l.State, "ssh", "id_ed25519") }

// GuestCPIO is the initramfs part with the guest binary of one build.
func (l Layout) GuestCPIO(build string) string {
	return filepath.Join(l.Cache, "guest-"+build+".cpio")
}

// Image is the folder of one image.
func (l Layout) Image(id string) ImageDir { return ImageDir{filepath.Join(l.Images(), id)} }

// ImageDir holds one image; it is written once and never changed.
type ImageDir struct{ Dir string }

func (d ImageDir) RootFS() string   { return filepath.Join(d.Dir, "rootfs.ext4") }
func (d ImageDir) Manifest() string { return filepath.Join(d.Dir, "manifest.json") }

// WorkSeed is what a new home is filled with in place of the image's /root, where
// the image's owner gave one: ext4, its top folder is the home. See package seed.
func (d ImageDir) WorkSeed() string { return filepath.Join(d.Dir, "work-seed.ext4") }

// Kernel is the folder of one kernel.
func (l Layout) Kernel(id string) KernelDir { return KernelDir{filepath.Join(l.Kernels(), id)} }

// KernelDir holds one kernel; it is written once and never changed.
type KernelDir struct{ Dir string }

func (d KernelDir) VMLinux() string     { return filepath.Join(d.Dir, "vmlinux") }
func (d KernelDir) Modules() string     { return filepath.Join(d.Dir, "modules.ext4") } // all of /lib/modules/<release>, as the folder <release>
func (d KernelDir) BootModules() string { return filepath.Join(d.Dir, "boot.cpio") }    // what a guest needs before its disks
func (d KernelDir) Manifest() string    { return filepath.Join(d.Dir, "manifest.json") }

// VM is the two folders of one VM.
func (l Layout) VM(id string) VMDir {
	return VMDir{State: filepath.Join(l.VMs(), id), Run: filepath.Join(l.Runtime, "vm", id)}
}

// VMDir names the files of one VM. Both folders are deleted with the VM; a
// clone copies the disks only.
type VMDir struct{ State, Run string }

func (d VMDir) SystemDisk() string   { return filepath.Join(d.State, "system.ext4") } // cloned
func (d VMDir) RootDisk() string     { return filepath.Join(d.State, "root.ext4") }   // cloned; in place of the system disk, with reflink
func (d VMDir) RootChanges() string  { return filepath.Join(d.State, "root.cow") }    // the same, with dm-snapshot: what differs from the image
func (d VMDir) WorkDisk() string     { return filepath.Join(d.State, "work.ext4") }   // cloned
func (d VMDir) Initrd() string       { return filepath.Join(d.State, "initrd.img") }  // made anew at each start
func (d VMDir) ConsoleLog() string   { return filepath.Join(d.State, "console.log") } // rotated to console.log.1
func (d VMDir) KeeperLog() string    { return filepath.Join(d.State, "keeper.log") }
func (d VMDir) VMMLog() string       { return filepath.Join(d.State, "vmm.log") }          // stderr of the VMM
func (d VMDir) VMMMetrics() string   { return filepath.Join(d.State, "vmm-metrics.json") } // the VMM's newest figures
func (d VMDir) KeeperConfig() string { return filepath.Join(d.State, "keeper.json") }      // what the keeper was started with
func (d VMDir) Handle() string       { return filepath.Join(d.State, "handle.json") }      // what is momentarily true: pids, sockets, boot
func (d VMDir) ExitFile() string     { return filepath.Join(d.State, "exit.json") }        // the keeper's last word

func (d VMDir) KeeperSocket() string { return filepath.Join(d.Run, "keeper.sock") }
func (d VMDir) GuestSocket() string  { return filepath.Join(d.Run, "guest.sock") } // one connection, one stream to the agent
func (d VMDir) BulkSocket() string   { return filepath.Join(d.Run, "bulk.sock") }  // the same by the fastest way into the guest
func (d VMDir) QMPSocket() string    { return filepath.Join(d.Run, "qmp.sock") }
func (d VMDir) LinkSocket() string   { return filepath.Join(d.Run, "link.sock") } // the VMM's end of the guest link
func (d VMDir) NetSocket() string    { return filepath.Join(d.Run, "net.sock") }  // the VMM's end of the user network
func (d VMDir) VMMFolder() string    { return filepath.Join(d.Run, "vmm") }       // what Firecracker has of its own; gone with it

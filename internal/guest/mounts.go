package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

const (
	safeFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// diskOptions: the host's disk is sparse and reads as zeros, so inode tables
	// need no writing; what is deleted goes back to the host.
	diskOptions = "noinit_itable,discard"
)

// mount mounts, making the folder where it is missing.
func mount(source, target, fstype string, flags uintptr, data string) error {
	err := unix.Mount(source, target, fstype, flags, data)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("cannot mount %s: %w", target, err)
		}
		err = unix.Mount(source, target, fstype, flags, data)
	}
	if err != nil {
		return fmt.Errorf("cannot mount %s (%s, %s): %w", target, source, fstype, err)
	}
	return nil
}

// mountFirst mounts what finding the disks needs, in the initramfs.
func mountFirst() error {
	for _, m := range []struct{ source, target, fstype string }{
		{"devtmpfs", "/dev", "devtmpfs"},
		{"proc", "/proc", "proc"},
		{"sysfs", "/sys", "sysfs"},
	} {
		if err := mount(m.source, m.target, m.fstype, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

// mountRoot makes the new root and goes into it.
func (i *initProcess) mountRoot() error {
	assemble, top := i.overlayRoot, "/system"
	if i.cfg.OwnRoot {
		assemble, top = i.ownRoot, "/newroot"
	}
	if err := assemble(); err != nil {
		return err
	}
	f, err := os.Open(top)
	if err != nil {
		return fmt.Errorf("cannot keep the system disk: %w", err)
	}
	i.system = f
	if i.initramfs, err = os.Open("/"); err != nil {
		return fmt.Errorf("cannot keep the initramfs: %w", err)
	}

	for _, do := range []func() error{
		func() error { return unix.Chdir("/newroot") },
		func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") },
		func() error { return unix.Chroot(".") },
		func() error { return unix.Chdir("/") },
	} {
		if err := do(); err != nil {
			return fmt.Errorf("cannot go into the new root: %w", err)
		}
	}
	return nil
}

// bootedMark is an attribute of the top folder of a root disk of the VM's own:
// this VM has booted from it before. Only the guest's root sees it.
const bootedMark = "trusted.banger.booted"

// ownRoot mounts a root disk that is the VM's alone.
func (i *initProcess) ownRoot() error {
	disk := i.disks[guestapi.RoleRoot]
	if disk == "" {
		return errors.New("cannot mount the root: the configuration names no root disk")
	}
	if err := mount(disk, "/newroot", "ext4", 0, diskOptions); err != nil {
		return err
	}
	var err error
	if i.fresh, err = firstUse("/newroot"); err != nil {
		return fmt.Errorf("cannot prepare the root disk: %w", err)
	}
	return nil
}

// firstUse says whether this is the first boot from a root disk, and marks it. As
// with makeLayer everybody may enter the root.
func firstUse(root string) (bool, error) {
	_, err := unix.Lgetxattr(root, bootedMark, nil)
	if !errors.Is(err, unix.ENODATA) {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return false, err
	}
	if err := unix.Chmod(root, st.Mode&0o7777|0o555); err != nil {
		return false, err
	}
	return true, unix.Lsetxattr(root, bootedMark, []byte("1"), 0)
}

// overlayRoot lays the system disk over the image, as one file system also to
// those who look at device numbers (du -x, tar --one-file-system). The two disks'
// own mounts stay in the initramfs, where nothing of the guest can see them.
func (i *initProcess) overlayRoot() error {
	base, system := i.disks[guestapi.RoleRoot], i.disks[guestapi.RoleSystem]
	if base == "" || system == "" {
		return errors.New("cannot mount the root: the configuration names no root and system disk")
	}
	if err := mount(base, "/lower", "ext4", unix.MS_RDONLY, ""); err != nil {
		// A journal left dirty cannot be replayed on a read-only disk.
		if err2 := mount(base, "/lower", "ext4", unix.MS_RDONLY, "noload"); err2 != nil {
			return err
		}
	}
	if err := mount(system, "/system", "ext4", 0, diskOptions); err != nil {
		return err
	}
	i.step("disks")
	var err error
	named := func(dir string) { i.named = nameLayer("/lower/etc", dir+"/etc", i.cfg) }
	if i.fresh, err = makeLayer("/lower", "/system/upper", named); err != nil {
		return fmt.Errorf("cannot prepare the system disk: %w", err)
	}
	if err := os.Mkdir("/system/work", 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot prepare the system disk: %w", err)
	}
	if !i.fresh {
		forgetMountPoints("/system/upper", i.cfg.KernelRelease)
	}
	// Not xino=on: that lets the kernel hide what another image has in the folders
	// made over this one.
	return mount("overlay", "/newroot", "overlay", 0, "lowerdir=/lower,upperdir=/system/upper,workdir=/system/work,xino=auto")
}

// leaveInitramfs loads what no command waits for and gives the initramfs's memory
// back; the file system itself stays for good.
func (i *initProcess) leaveInitramfs() error {
	dir := fmt.Sprintf("/proc/self/fd/%d", i.initramfs.Fd()) // out of sight since the chroot
	err := loadModules(dir+guestapi.ModulesPath, guestapi.LoadLater, all)
	return errors.Join(err, os.RemoveAll(dir+"/banger"), os.Remove(dir+"/init"), i.initramfs.Close())
}

// makeLayer makes the upper layer on first use: its top folder's owner and mode
// are the ones the guest sees. It says whether this was the first use.
func makeLayer(lower, upper string, fill func(dir string)) (fresh bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(upper, &st); err == nil {
		return false, nil
	}
	if err := unix.Stat(lower, &st); err != nil {
		return false, err
	}
	tmp := upper + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return false, err
	}
	// Whatever the image's archive says of its root, everybody may enter it, as
	// in a container.
	st.Mode |= 0o555
	if err := makeLike(tmp, &st); err != nil {
		return false, err
	}
	fill(tmp)
	return true, os.Rename(tmp, upper)
}

// forgetMountPoints removes from the upper layer the folders that were made to
// mount the modules on, where nothing else came into them: under another image,
// whose /lib is a link, they would hide all its libraries.
func forgetMountPoints(upper, release string) {
	for _, dir := range []string{"lib/modules/" + release, "lib/modules", "lib"} {
		if release == "" || unix.Rmdir(filepath.Join(upper, dir)) != nil {
			return
		}
	}
}

// makeLike makes a folder with the owner and mode of another.
func makeLike(dir string, st *unix.Stat_t) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Lchown(dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(dir, st.Mode&0o7777)
}

// mountAPI mounts the kernel's file systems in the new root. fresh says that
// nothing but the image has had a say there yet.
func mountAPI(fresh bool) error {
	var errs []error
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"proc", "/proc", "proc", safeFlags, ""},
		{"sysfs", "/sys", "sysfs", safeFlags, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,gid=5,ptmxmode=666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755,size=20%"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", safeFlags, "nsdelegate"},
	} {
		if err := mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			errs = append(errs, err)
		}
	}
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, ensureDir("/run/lock", 0o1777), ensureDir("/tmp", 0o1777))
	if fi, err := os.Lstat("/tmp"); fresh && err == nil && fi.IsDir() && fi.Mode()&(os.ModeSticky|0o777) != os.ModeSticky|0o777 {
		errs = append(errs, unix.Chmod("/tmp", 0o1777))
	}
	return errors.Join(errs...)
}

// ensureDir makes a folder of that mode where there is nothing.
func ensureDir(path string, mode uint32) error {
	err := unix.Mkdir(path, mode)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err == nil {
		err = unix.Chmod(path, mode) // whatever the umask is
	}
	if err != nil {
		return fmt.Errorf("cannot make folder %s: %w", path, err)
	}
	return nil
}

// withMount mounts a disk where nobody looks, runs fn on it and unmounts it;
// what fn bound elsewhere stays.
func withMount(device string, flags uintptr, data string, fn func(dir string) error) error {
	dir := "/run/.banger-" + filepath.Base(device)
	if err := unix.Mkdir(dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot mount %s: %w", device, err)
	}
	defer func() { _ = os.Remove(dir) }()
	if err := mount(device, dir, "ext4", flags, data); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	return fn(dir)
}

// mountModules binds the modules disk's folder of this kernel to where modprobe
// looks for it.
func (i *initProcess) mountModules() error {
	device, release := i.disks[guestapi.RoleModules], i.cfg.KernelRelease
	if device == "" || release == "" {
		return nil
	}
	if fi, err := os.Stat("/lib"); err != nil || !fi.IsDir() {
		if _, err := os.Lstat("/lib"); err == nil {
			return nil // a link to nothing: no modprobe looks there
		}
	}
	target := "/lib/modules/" + release
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("cannot mount the kernel's modules: %w", err)
	}
	return withMount(device, unix.MS_RDONLY, "", func(dir string) error {
		source := dir + "/" + release
		if fi, err := os.Lstat(source); err != nil || !fi.IsDir() {
			source = dir
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount the kernel's modules: %w", err)
		}
		return nil
	})
}

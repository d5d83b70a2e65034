package cell

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// enterRoot makes the binds all there is of files. A copy of each is taken
// before the new root hides anything.
func (p Plan) enterRoot() error {
	defer unix.Umask(unix.Umask(0)) // modes in the root are meant as they are
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot have mounts of our own: %w", err)
	}
	copies := make([]int, len(p.Binds))
	devices := make([]unix.Stat_t, len(p.Binds)) // those to be made anew
	for i, b := range p.Binds {
		if b.Device && p.UID != 0 {
			if err := unix.Stat(b.From, &devices[i]); err != nil {
				return fmt.Errorf("cannot take %s along: %w", b.From, err)
			}
			if isDevice(devices[i]) {
				continue
			}
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, b.From, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("cannot take %s along: %w", b.From, err)
		}
		copies[i] = fd
	}
	closed := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if p.UID != 0 {
		closed = unix.MS_NOSUID
	}
	if err := unix.Mount("banger", p.Store, "tmpfs", closed, "size=64k,nr_inodes=64,mode=0755"); err != nil {
		return fmt.Errorf("cannot mount the root of the cell: %w", err)
	}
	for i, b := range p.Binds {
		if isDevice(devices[i]) {
			if err := b.makeDevice(devices[i], p.Store, p.UID); err != nil {
				return fmt.Errorf("cannot make %s: %w", b.From, err)
			}
			continue
		}
		if b.Lent > 0 {
			if err := b.lendMount(copies[i], controlFD+p.Files+b.Lent); err != nil {
				return err
			}
		}
		if err := b.place(copies[i], p.Store); err != nil {
			return fmt.Errorf("cannot place %s: %w", b.From, err)
		}
		_ = unix.Close(copies[i])
	}
	if err := os.Chdir(p.Store); err != nil {
		return err
	}
	// The old root ends up on top of the new one, from where it is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("cannot enter the root of the cell: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot let go of the host's files: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|closed, ""); err != nil {
		return fmt.Errorf("cannot close the root of the cell: %w", err)
	}
	return nil
}

func isDevice(st unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK
}

// makeDevice makes a device of the user's own, whoever may open the host's.
func (b Bind) makeDevice(st unix.Stat_t, root string, uid int) error {
	to := filepath.Join(root, b.To)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	mode := uint32(0o400)
	if b.Writable {
		mode = 0o600
	}
	if err := unix.Mknod(to, st.Mode&unix.S_IFMT|mode, int(st.Rdev)); err != nil {
		return err
	}
	return unix.Chown(to, uid, uid)
}

// place mounts the copy at its place under root.
func (b Bind) place(fd int, root string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	to := filepath.Join(root, b.To)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	} else if err := os.WriteFile(to, nil, 0o600); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	set := uint64(unix.MOUNT_ATTR_NOSUID)
	if !b.Writable {
		set |= unix.MOUNT_ATTR_RDONLY
	}
	if !b.Device {
		set |= unix.MOUNT_ATTR_NODEV
	}
	// Before Linux 5.12 this cannot be told a mount of its own; the VMM opens
	// such files for reading only all the same.
	err := unix.MountSetattr(unix.AT_FDCWD, to, 0, &unix.MountAttr{Attr_set: set})
	if errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

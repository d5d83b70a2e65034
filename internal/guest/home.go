package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// homePath is where every image has its home, or a link to it.
const homePath = "/root"

// mountHome binds the work disk's folder "root" to /root, filled on first use
// with the user's own seed, else with what the image has there.
func (i *initProcess) mountHome() error {
	device := i.disks[guestapi.RoleWork]
	if device == "" {
		return nil
	}
	target, err := realFolder("/", homePath)
	if err != nil {
		return fmt.Errorf("cannot mount the work disk at %s: %w", homePath, err)
	}
	return withMount(device, 0, diskOptions, func(dir string) error {
		home := dir + "/root"
		if _, err := os.Lstat(home); errors.Is(err, os.ErrNotExist) {
			if err := i.fillHome(target, home); err != nil {
				return fmt.Errorf("cannot fill the work disk: %w", err)
			}
		}
		if err := authorize(home, dir+"/ssh-key", i.cfg.AuthorizedKey); err != nil {
			i.warn(err)
		}
		if err := unix.Mount(home, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount the work disk at %s: %w", homePath, err)
		}
		return nil
	})
}

// fillHome fills a new home with the seed, or with the image's own.
func (i *initProcess) fillHome(image, home string) error {
	device := i.disks[guestapi.RoleSeed]
	if device == "" {
		return seedHome(image, home)
	}
	return withMount(device, unix.MS_RDONLY, "", func(seed string) error { return seedHome(seed, home) })
}

// realFolder is the folder that path, absolute and below root, names or links
// to, made where it is missing. Links are followed within root.
func realFolder(root, path string) (string, error) {
	for range 40 {
		at := filepath.Join(root, path)
		fi, err := os.Lstat(at)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				return "", err
			}
			return at, ensureDir(at, 0o700)
		case err != nil:
			return "", err
		case fi.Mode()&os.ModeSymlink == 0 && !fi.IsDir():
			return "", fmt.Errorf("%s is no folder in the image", path)
		case fi.IsDir():
			if path == "/" {
				return "", errors.New("it is a link to / in the image")
			}
			return at, nil
		}
		link, err := os.Readlink(at)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = filepath.Join("/", link)
	}
	return "", unix.ELOOP
}

// seedHome copies a home to the work disk, all or nothing: that of the image, or
// a seed, whose own lost+found stays behind. Nothing here waits for the disk: ext4 commits in order, so that the home's name, and
// whatever is written into it later, reach the disk no earlier than its files,
// once writing those has begun (see copyFile).
func seedHome(from, to string) error {
	tmp := to + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	c := copier{links: map[inode]string{}, skip: filepath.Join(from, "lost+found")}
	if err := c.copy(from, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

type inode struct {
	dev, ino uint64
}

// copier copies a tree with owners, modes, times, extended attributes and hard
// links.
type copier struct {
	links map[inode]string
	skip  string
}

func (c *copier) copy(from, to string) error {
	var st unix.Stat_t
	if from == c.skip {
		return nil
	}
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("cannot read %s: %w", from, err)
	}
	id := inode{st.Dev, st.Ino}
	kind := st.Mode & unix.S_IFMT
	if first, ok := c.links[id]; ok && kind != unix.S_IFDIR {
		return os.Link(first, to)
	}
	switch kind {
	case unix.S_IFDIR:
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := c.copy(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	case unix.S_IFREG:
		if err := copyFile(from, to); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
	case unix.S_IFSOCK:
		return nil // lives with its process only
	default:
		if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return fmt.Errorf("cannot make %s: %w", to, err)
		}
	}
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		c.links[id] = to
	}
	return copyMeta(from, to, &st)
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close()
		return err
	}
	// Begins to write: until then the file has a name but no blocks that a
	// commit of the journal would wait for.
	if err := control(dst, func(fd int) error { return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) }); err != nil {
		_ = dst.Close()
		return err
	}
	return dst.Close()
}

// copyMeta sets the owner first: a change of owner clears set-user-id bits and
// capabilities.
func copyMeta(from, to string, st *unix.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyXattrs(from, to); err != nil {
		return fmt.Errorf("cannot copy the attributes of %s: %w", from, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyXattrs(from, to string) error {
	n, err := unix.Llistxattr(from, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	names := make([]byte, n)
	if n, err = unix.Llistxattr(from, names); err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		size, err := unix.Lgetxattr(from, name, nil)
		if err != nil {
			return err
		}
		value := make([]byte, size)
		if size, err = unix.Lgetxattr(from, name, value); err != nil {
			return err
		}
		if err := unix.Lsetxattr(to, name, value[:size], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}

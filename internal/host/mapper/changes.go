package mapper

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// chunk is what a snapshot copies at the first write into it, in bytes.
const chunk = 16 << 10

// ChangesSize is the size of the file that holds all changes a device of so many
// bytes can have: each chunk, an entry of 16 bytes for it, and a header; see
// drivers/md/dm-snap-persistent.c of Linux.
func ChangesSize(bytes int64) int64 {
	chunks := (bytes + chunk - 1) / chunk
	const entries = chunk / 16
	areas := (chunks + entries - 1) / entries
	return (1 + areas + chunks + 8) * chunk
}

// CheckFolder says with an error that a file of changes cannot be on the file
// system of that folder: its room must be there for good once it is laid aside.
// Elsewhere the kernel gives the whole snapshot up at the first write that finds
// the disk full.
func (m *Mapper) CheckFolder(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return api.Errorf(kindOf(err), "cannot look at the file system of %s: %w", dir, err)
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return nil
	}
	return api.Errorf(api.KindUnsupported, "cannot keep a snapshot in %s: its file system is neither ext4 nor XFS, and cannot promise the room for it", dir)
}

// MakeChanges makes the file for the changes of a device of so many bytes, all
// its room laid aside. On an error the file does not exist.
func (m *Mapper) MakeChanges(path string, bytes int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return api.Errorf(kindOf(err), "cannot make %s: %w", path, err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	return layAside(f, 0, ChangesSize(bytes))
}

// GrowChanges makes room for a device of more bytes. Used says that the device is
// in use: then the room is only laid aside, and the next call, when it is not,
// makes it part of the file.
func (m *Mapper) GrowChanges(path string, bytes int64, used bool) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return api.Errorf(kindOf(err), "cannot grow %s: %w", path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return api.Errorf(kindOf(err), "cannot grow %s: %w", path, err)
	}
	mode := uint32(0)
	if used {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	if err := layAside(f, mode, ChangesSize(bytes)); err != nil {
		_ = f.Truncate(fi.Size()) // gives back what came to be of it
		return err
	}
	return nil
}

func layAside(f *os.File, mode uint32, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), mode, 0, size)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
			return api.Errorf(api.KindNoSpace, "cannot lay %d MiB aside for %s: %w", size>>20, f.Name(), err).
				WithHint("df -h %s", filepath.Dir(f.Name()))
		default:
			return api.Errorf(kindOf(err), "cannot lay %d MiB aside for %s: %w", size>>20, f.Name(), err)
		}
	}
}

// Damage says what is wrong with a file of changes that was in use before; empty
// when nothing is to be seen.
func (m *Mapper) Damage(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", api.Errorf(kindOf(err), "cannot read %s: %w", path, err)
	}
	defer f.Close()
	// struct disk_header of dm-snap-persistent.c.
	b := make([]byte, 16)
	if _, err := io.ReadFull(f, b); err != nil {
		return "is cut off", nil
	}
	le := binary.LittleEndian
	const magic = 0x70416e53 // SnAp
	switch {
	case le.Uint32(b) != magic:
		return "is no snapshot", nil
	case le.Uint32(b[4:]) == 0:
		return "is a snapshot that the kernel has given up", nil
	case le.Uint32(b[12:]) != chunk/sectorSize:
		return "is a snapshot of another kind", nil
	}
	return "", nil
}

func kindOf(err error) api.Kind {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return api.KindNotFound
	case errors.Is(err, os.ErrExist):
		return api.KindExists
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS):
		return api.KindDenied
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return api.KindNoSpace
	}
	return api.KindInternal
}

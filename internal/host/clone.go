package host

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// CanClone says with an error why a file cannot be cloned into the folder. It
// clones it, and removes the clone. Kind unsupported means that the file system
// does not share blocks, or that the file lies on another.
func (h *Real) CanClone(path, dir string) error {
	f, err := os.CreateTemp(dir, "clone-")
	if err != nil {
		return api.Errorf(kindOf(err), "cannot try to clone %s: %w", path, err)
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	return cloneInto(f, path)
}

// CloneExt4 makes the file to a writable copy, of so many bytes, of the image in
// from: it shares all blocks with it that are not changed. On an error the file
// does not exist.
func (h *Real) CloneExt4(ctx context.Context, from, to string, size int64) (err error) {
	fail := func(err error) error {
		return api.Errorf(api.KindOf(classify(err)), "cannot make disk %s: %w", to, err).WithHint("%s", hintFor(err, filepath.Dir(to)))
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fail(cerr)
		}
		if err != nil {
			_ = os.Remove(to)
		}
	}()
	if err := cloneInto(f, from); err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if size = roundUp(size); size < fi.Size() {
		return api.Errorf(api.KindInvalid, "cannot make disk %s of %d bytes: the image has %d", to, size, fi.Size())
	}
	if err := f.Truncate(size); err != nil {
		return fail(err)
	}
	if err := h.OwnExt4(ctx, to, size); err != nil {
		return err
	}
	if err := digHoles(f); err != nil {
		return fail(err)
	}
	return nil
}

// cloneInto makes f a clone of the file: ioctl_ficlone(2).
func cloneInto(f *os.File, path string) error {
	from, err := os.Open(path)
	if err != nil {
		return api.Errorf(kindOf(err), "cannot clone %s: %w", path, err)
	}
	defer func() { _ = from.Close() }()
	err = unix.IoctlFileClone(int(f.Fd()), int(from.Fd()))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EXDEV):
		return api.Errorf(api.KindUnsupported, "cannot clone %s: it lies on another file system than %s", path, filepath.Dir(f.Name()))
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
		return api.Errorf(api.KindUnsupported, "cannot clone %s: its file system does not share blocks between files", path)
	}
	return api.Errorf(api.KindOf(classify(err)), "cannot clone %s: %w", path, err).WithHint("%s", hintFor(err, filepath.Dir(f.Name())))
}

// digHoles gives back the blocks that were laid aside in a file and never
// written, which read as zeros either way: where the file system cannot tell them
// from data, they stay.
func digHoles(f *os.File) error {
	for at := int64(0); ; {
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) { // that was the end
			return nil
		}
		if err != nil {
			return err
		}
		data, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no more
			if data, err = f.Seek(0, io.SeekEnd); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		if hole >= data {
			return nil // the end, which counts as a hole
		}
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, hole, data-hole)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return err
		}
		at = data
	}
}

package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// place renames temp to path and makes that last.
func place(temp, path string, replace bool) error {
	err := rename(temp, path, replace)
	switch {
	case errors.Is(err, os.ErrExist):
		_ = os.Remove(temp)
		return taken(path)
	case err != nil:
		_ = os.Remove(temp)
		return fileError("write bundle", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // it is there; only a power cut could take the name back
	}
	defer func() { _ = dir.Close() }()
	_ = dir.Sync()
	return nil
}

func rename(temp, path string, replace bool) error {
	if replace {
		if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
			return errors.New("what is there is not a regular file")
		}
		return os.Rename(temp, path)
	}
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system that cannot: two steps, with a moment between them.
		if _, serr := os.Lstat(path); serr == nil {
			return os.ErrExist
		}
		return os.Rename(temp, path)
	}
	return err
}

// fileError gives an error about a file that was to be written its kind; one
// that has a kind keeps it.
func fileError(what, path string, err error) error {
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return api.Errorf(api.KindNoSpace, "cannot %s %s: %w", what, path, err).WithHint("df -h %s", filepath.Dir(path))
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return api.Errorf(api.KindDenied, "cannot %s %s: %w", what, path, err).WithHint("ls -ld %s", filepath.Dir(path))
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return api.Errorf(api.KindNotFound, "cannot %s %s: %w", what, path, err).WithHint("ls -ld %s", filepath.Dir(path))
	}
	return api.Errorf(api.KindInternal, "cannot %s %s: %w", what, path, err)
}

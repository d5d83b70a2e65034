package firecracker

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// The bytes that QEMU locks of an image to say that it writes to it, and that
// nobody else may: Firecracker locks nothing, so we say the same in its name.
const (
	byteWrites      = 100 + 1
	byteNoneWrites  = 200 + 1
	lockedByTheVMMs = "a disk is in use by another machine: "
)

// lockDisks locks the writable disks. The locks belong to the files, and last
// until the last process that has them is gone: they are for the VMM to inherit.
func lockDisks(disks []vmm.Disk) (_ []*os.File, err error) {
	var files []*os.File
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	for _, d := range disks {
		if d.ReadOnly {
			continue
		}
		f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
		if err != nil {
			kind := api.KindUnavailable
			if errors.Is(err, os.ErrPermission) {
				kind = api.KindDenied
			}
			return nil, api.Errorf(kind, "cannot start Firecracker: %w", err)
		}
		files = append(files, f)
		if err := lockDisk(f); errors.Is(err, errLocked) {
			return nil, api.Errorf(api.KindBusy, "cannot start Firecracker: %s%s", lockedByTheVMMs, d.Path)
		} else if err != nil {
			return nil, api.Errorf(api.KindInternal, "cannot lock disk %s: %w", d.Path, err)
		}
	}
	return files, nil
}

var errLocked = errors.New("locked")

// lockDisk takes both locks first and then looks for others', so that of two at
// the same time none gets by.
func lockDisk(f *os.File) error {
	for _, at := range []int64{byteWrites, byteNoneWrites} {
		l := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return errLocked
		} else if err != nil {
			return err
		}
	}
	for _, at := range []int64{byteWrites, byteNoneWrites} {
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
			return err
		}
		if l.Type != unix.F_UNLCK {
			return errLocked
		}
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

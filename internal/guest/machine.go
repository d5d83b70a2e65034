package guest

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

func setTime(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return api.Errorf(api.KindInvalid, "cannot set the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// reseed gives the kernel the host's random bytes, counted in full, and sees that it
// uses them from now on.
func reseed(seed []byte) error {
	if len(seed) < 32 || len(seed) > 4096 {
		return fmt.Errorf("cannot seed the random numbers with %d bytes", len(seed))
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := binary.NativeEndian.AppendUint32(nil, uint32(8*len(seed)))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(seed)))
	b = append(b, seed...)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&b[0]))); e != 0 {
		return fmt.Errorf("cannot seed the random numbers: %w", e)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDRESEEDCRNG, 0); e != 0 {
		return fmt.Errorf("cannot seed the random numbers anew: %w", e)
	}
	return nil
}

// grow enlarges the mounted file system of a role to its disk and returns its
// size in bytes.
func (i *initProcess) grow(role string) (int64, error) {
	device := i.disks[role]
	if device == "" || role != guestapi.RoleSystem && role != guestapi.RoleWork {
		return 0, api.Errorf(api.KindInvalid, "cannot grow disk %q: there is none", role)
	}
	where := i.system
	if role == guestapi.RoleWork {
		f, err := os.Open("/root")
		if err != nil {
			return 0, api.Errorf(api.KindGuest, "cannot grow the work disk: %w", err)
		}
		defer f.Close()
		where = f
	}
	i.growing.Lock()
	defer i.growing.Unlock()
	size, err := deviceSize(device)
	if err == nil {
		size, err = growExt4(where, size)
	}
	if err != nil {
		return 0, api.Errorf(api.KindGuest, "cannot grow the %s disk: %w", role, err)
	}
	return size, nil
}

func deviceSize(device string) (int64, error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return 0, errno
	}
	return int64(size), nil
}

// ext4Resize is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64).
const ext4Resize = 0x40086610

func growExt4(f *os.File, size int64) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	if st.Type != unix.EXT4_SUPER_MAGIC {
		return 0, fmt.Errorf("its file system is not ext4")
	}
	blocks := uint64(size / st.Bsize)
	// statfs leaves out what the file system uses for itself, so it cannot tell
	// whether there is anything to do; the kernel does nothing when there is not.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ext4Resize, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return 0, errno
	}
	return int64(blocks) * st.Bsize, nil
}

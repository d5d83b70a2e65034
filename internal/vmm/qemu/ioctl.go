package qemu

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vhostVsockSetGuestCID is _IOW(VHOST_VIRTIO, 0x60, __u64), linux/vhost.h.
const vhostVsockSetGuestCID = 0x4008af60

// ioctlUint64 passes a pointer to v.
func ioctlUint64(f *os.File, request uintptr, v uint64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&v)))
	}); err != nil {
		return err
	}
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

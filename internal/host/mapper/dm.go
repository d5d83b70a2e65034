package mapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// target is one piece of a device: so many sectors of a kind; see
// Documentation/admin-guide/device-mapper of Linux.
type target struct {
	start, sectors uint64
	kind, params   string
}

const (
	sectorSize = 512
	specSize   = unix.SizeofDmTargetSpec
	headerSize = unix.SizeofDmIoctl
)

// udevHandsOff are the flags, by libdevmapper's convention in the upper half of an
// event number, that make the rules of udev skip a device: no links, no look at
// what is on it, nothing that opens it.
const udevHandsOff = (0x1 | 0x2 | 0x4 | 0x8) << 16

// status is what the kernel says of a device.
type status struct {
	name, uuid string
	dev        uint64
	opened     int
}

func (s status) majorMinor() string {
	return fmt.Sprintf("%d:%d", unix.Major(s.dev), unix.Minor(s.dev))
}

// request is one ioctl of device-mapper: struct dm_ioctl of linux/dm-ioctl.h, and
// what follows it.
type request struct {
	name, uuid string
	flags      uint32
	event      uint32
	targets    []target
}

// do opens the control device and asks the kernel.
func (m *Mapper) do(command uint, r request) (status, error) {
	f, err := os.OpenFile(m.control, os.O_RDWR, 0)
	if err != nil {
		return status{}, err
	}
	defer f.Close()
	b := r.encode()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(command), uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return status{}, errno
	}
	return decode(b), nil
}

func (r request) encode() []byte {
	ne := binary.NativeEndian
	b := make([]byte, headerSize, 4096)
	for i, t := range r.targets {
		spec := make([]byte, specSize, 256)
		ne.PutUint64(spec[0:], t.start)
		ne.PutUint64(spec[8:], t.sectors)
		copy(spec[24:], t.kind)
		spec = append(append(spec, t.params...), 0)
		for len(spec)%8 != 0 {
			spec = append(spec, 0)
		}
		if i < len(r.targets)-1 {
			ne.PutUint32(spec[20:], uint32(len(spec)))
		}
		b = append(b, spec...)
	}
	for len(b) < headerSize+1024 { // room for an answer
		b = append(b, 0)
	}
	ne.PutUint32(b[0:], 4) // the protocol's version
	ne.PutUint32(b[12:], uint32(len(b)))
	ne.PutUint32(b[16:], headerSize)
	ne.PutUint32(b[20:], uint32(len(r.targets)))
	ne.PutUint32(b[28:], r.flags)
	ne.PutUint32(b[32:], r.event)
	copy(b[48:48+unix.DM_NAME_LEN-1], r.name)
	copy(b[176:176+unix.DM_UUID_LEN-1], r.uuid)
	return b
}

func decode(b []byte) status {
	ne := binary.NativeEndian
	return status{
		dev: ne.Uint64(b[40:]), opened: int(int32(ne.Uint32(b[24:]))),
		name: text(b[48 : 48+unix.DM_NAME_LEN]), uuid: text(b[176 : 176+unix.DM_UUID_LEN]),
	}
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// gone is what the kernel says of a device that is not there.
func gone(err error) bool { return errors.Is(err, unix.ENXIO) }

// byName gives a device of that name, whoever's it is.
func (m *Mapper) byName(name string) (status, error) {
	return m.do(unix.DM_DEV_STATUS, request{name: name})
}

func (m *Mapper) byUUID(uuid string) (status, error) {
	return m.do(unix.DM_DEV_STATUS, request{uuid: uuid})
}

// create makes a device that works.
func (m *Mapper) create(name, uuid string, readOnly bool, targets []target) (_ status, err error) {
	if err := m.step("create " + name); err != nil {
		return status{}, err
	}
	if _, err := m.do(unix.DM_DEV_CREATE, request{name: name, uuid: uuid}); errors.Is(err, unix.EBUSY) {
		return status{}, taken(status{name: name}) // in this very instant
	} else if err != nil {
		return status{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.remove(uuid))
		}
	}()
	flags := uint32(0)
	if readOnly {
		flags = unix.DM_READONLY_FLAG
	}
	if err := m.step("load " + name); err != nil {
		return status{}, err
	}
	if _, err := m.do(unix.DM_TABLE_LOAD, request{uuid: uuid, flags: flags, targets: targets}); err != nil {
		return status{}, err
	}
	if err := m.step("resume " + name); err != nil {
		return status{}, err
	}
	return m.do(unix.DM_DEV_SUSPEND, request{uuid: uuid, event: udevHandsOff}) // without a flag: it resumes
}

// remove removes the device of that UUID; one that is not there is removed.
func (m *Mapper) remove(uuid string) error {
	_, err := m.do(unix.DM_DEV_REMOVE, request{uuid: uuid, event: udevHandsOff})
	if gone(err) {
		return nil
	}
	return err
}

// removeWithTheLast marks the device for removal: at once when nobody has it
// open, else with the last who has.
func (m *Mapper) removeWithTheLast(uuid string) error {
	_, err := m.do(unix.DM_DEV_REMOVE, request{uuid: uuid, flags: unix.DM_DEFERRED_REMOVE, event: udevHandsOff})
	if gone(err) {
		return nil
	}
	return err
}

// hasTarget says with an error that the kernel has no such kind of target. It
// loads the module.
func (m *Mapper) hasTarget(kind string) error {
	_, err := m.do(unix.DM_GET_TARGET_VERSION, request{name: kind})
	if errors.Is(err, unix.ENOTTY) { // before Linux 5.4 there is no asking
		return nil
	}
	return err
}

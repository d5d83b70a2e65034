package mapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// loopTries is how often another free loop device is asked for when somebody
// else was faster.
const loopTries = 20

// loop makes a loop device of the file. It is there as long as the descriptor it
// gives is open, or another user of the device. label is what losetup shows.
func (m *Mapper) loop(file *os.File, label string, readOnly bool) (_ *os.File, err error) {
	if err := m.step("loop " + label); err != nil {
		return nil, err
	}
	control, err := os.OpenFile(m.loops, os.O_RDWR, 0)
	if err != nil {
		return nil, api.Errorf(api.KindUnsupported, "cannot make a loop device: %w", err).WithHint("sudo modprobe loop")
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	how := os.O_RDWR
	if readOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
		how = os.O_RDONLY
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], label)
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, noLoop(err)
		}
		f, err := os.OpenFile(filepath.Join(m.dev, fmt.Sprintf("loop%d", n)), how, 0)
		if err != nil {
			return nil, noLoop(err)
		}
		err = unix.IoctlLoopConfigure(int(f.Fd()), &config)
		if err == nil {
			return f, nil
		}
		_ = f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, api.Errorf(api.KindInternal, "cannot make a loop device of %s: %w", file.Name(), err)
		}
	}
	return nil, noLoop(errors.New("all that were free were taken by others"))
}

func noLoop(err error) error {
	return api.Errorf(api.KindUnavailable, "cannot get a free loop device: %w", err).WithHint("sudo losetup -a")
}

// number is a block device's, as device-mapper wants it.
func number(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

package cell

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// Main furnishes the cell from inside and becomes the program. It returns only
// if that fails, having said why to Open.
func Main() error {
	// What is bound to a thread (capabilities, the signal at our parent's
	// death) has to be that of the thread that becomes the program.
	runtime.LockOSThread()
	control := os.NewFile(controlFD, "control")
	unix.CloseOnExec(controlFD)
	err := enter(control)
	told := api.AsError(err)
	if told.Kind != api.KindUnsupported && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) {
		told = unsupported(err)
	}
	_ = json.NewEncoder(control).Encode(word{told})
	return err
}

func enter(control *os.File) error {
	in := bufio.NewReader(control)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("cannot read the plan: %w", err)
	}
	var plan Plan
	if err := json.Unmarshal(line, &plan); err != nil {
		return fmt.Errorf("cannot read the plan: %w", err)
	}
	var tap *os.File
	if plan.Tap != nil {
		if tap, err = plan.Tap.make(plan.UID); err != nil {
			return api.Errorf(api.KindUnsupported, "this host does not let us have a tap: %w", err).WithHint("banger doctor")
		}
	}
	program := plan.Program
	if len(plan.Binds) > 0 {
		if err := plan.enterRoot(); err != nil {
			return err
		}
		program = programPath
	}
	if err := plan.Limits.set(plan.UID != 0 || countsByNamespace()); err != nil {
		return err
	}
	for i := range plan.Files {
		if _, err := unix.FcntlInt(uintptr(controlFD+1+i), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("cannot pass a descriptor on: %w", err)
		}
	}
	for i := range plan.Spaces {
		_ = unix.Close(controlFD + 1 + plan.Files + i)
	}
	if err := giveUpPrivileges(plan.UID); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot be bound to our parent: %w", err)
	}
	if err := ready(control, tap); err != nil {
		return err
	}
	if _, err := in.ReadByte(); err != nil {
		if errors.Is(err, io.EOF) {
			os.Exit(1) // nobody is left to tell
		}
		return fmt.Errorf("cannot hear our parent: %w", err)
	}
	if err := syscall.Exec(program, plan.Args, nil); err != nil {
		return api.Errorf(api.KindUnavailable, "cannot run %s: %w", plan.Program, err)
	}
	return nil
}

// ready says so and hands the tap out.
func ready(control, tap *os.File) error {
	b, err := json.Marshal(word{})
	if err != nil {
		return err
	}
	var rights []byte
	if tap != nil {
		rights = unix.UnixRights(int(tap.Fd()))
	}
	if err := unix.Sendmsg(controlFD, b, rights, nil, 0); err != nil {
		return fmt.Errorf("cannot hand the tap out: %w", err)
	}
	if tap != nil {
		return tap.Close()
	}
	return nil
}

// set limits the program. Of processes that is only sensible where no others
// of the same user count.
func (l Limits) set(counted bool) error {
	for _, r := range []struct {
		what  string
		which int
		value uint64
	}{
		{"core files", unix.RLIMIT_CORE, 0},
		{"memory", unix.RLIMIT_AS, l.AddressSpace},
		{"open files", unix.RLIMIT_NOFILE, l.Files},
		{"processes", unix.RLIMIT_NPROC, l.Processes},
	} {
		if r.value == 0 && r.which != unix.RLIMIT_CORE || r.which == unix.RLIMIT_NPROC && !counted {
			continue
		}
		var now syscall.Rlimit
		if err := syscall.Getrlimit(r.which, &now); err != nil {
			return fmt.Errorf("cannot limit %s: %w", r.what, err)
		}
		value := min(r.value, now.Max)
		if err := syscall.Setrlimit(r.which, &syscall.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("cannot limit %s: %w", r.what, err)
		}
	}
	return nil
}

// countsByNamespace says that the processes of a user namespace are counted for
// themselves; before Linux 5.14 all of the user's were.
func countsByNamespace() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 5 || major == 5 && minor >= 14)
}

// giveUpPrivileges makes the program the user's with that id, 0 meaning the one
// it is, and leaves it without any capability, though its user may be root in
// here, and without a way to one.
func giveUpPrivileges(uid int) error {
	for c := uintptr(0); c <= 63; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // beyond the last capability
		} else if err != nil {
			return fmt.Errorf("cannot give up capability %d: %w", c, err)
		}
	}
	// noroot, no-setuid-fixup, no-cap-ambient-raise, each of them locked.
	const secureBits = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<6 | 1<<7
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up being root: %w", err)
	}
	if uid != 0 {
		if err := become(uid); err != nil {
			return fmt.Errorf("cannot become user %d: %w", uid, err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("cannot give up capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot refuse new privileges: %w", err)
	}
	return nil
}

// become leaves all of root's groups too. It is of the whole process: the
// capabilities that no-setuid-fixup keeps are the calling thread's.
func become(uid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(uid, uid, uid); err != nil {
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}

package cell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm/child"
)

// owner of a file.
type owner struct{ uid, gid uint32 }

// lend finds the files that the plan's user is to read and may not, and gives a
// user namespace for each of their owners, in which the user is that owner: a
// mount with it lends the file, and changes nothing about it. The caller closes
// them.
func (p *Plan) lend(self string) (spaces []*os.File, err error) {
	defer func() {
		if err != nil {
			closeFiles(spaces)
			spaces = nil
		}
	}()
	index := map[owner]int{}
	for i := range p.Binds {
		b := &p.Binds[i]
		var st unix.Stat_t
		if err := unix.Stat(b.From, &st); err != nil {
			return spaces, fmt.Errorf("cannot take %s along: %w", b.From, err)
		}
		need := uint32(0o004)
		if b.To == programPath {
			need = 0o005
		}
		if b.Writable || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&need == need {
			continue
		}
		o := owner{st.Uid, st.Gid}
		if index[o] == 0 {
			ns, err := o.space(self, p.UID)
			if err != nil {
				return spaces, fmt.Errorf("cannot lend %s: %w", b.From, err)
			}
			spaces = append(spaces, ns)
			index[o] = len(spaces)
		}
		b.Lent = index[o]
	}
	return spaces, nil
}

// space makes a user namespace in which the host's user is the owner. It lives
// as long as its file; the process that it takes to make one ends here.
func (o owner) space(self string, uid int) (*os.File, error) {
	control, theirs, err := child.Pair("space")
	if err != nil {
		return nil, err
	}
	defer control.Close()
	defer theirs.Close()
	cmd := exec.Command(self, Command)
	cmd.ExtraFiles = []*os.File{theirs} // Main waits for a plan
	cmd.Env = []string{"GOGC=off", "GOMAXPROCS=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: int(o.uid), HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: int(o.gid), HostID: uid, Size: 1}},
	}
	p, err := child.Start(cmd)
	if err != nil {
		return nil, err
	}
	defer p.End()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", p.PID()))
}

// lendMount makes the detached mount one that lends.
func (b Bind) lendMount(fd, space int) error {
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(space)})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		how := "o+r"
		if b.To == programPath {
			how = "o+rx"
		}
		return api.Errorf(api.KindDenied, "the VMM's user may not read %s, and its file system cannot lend it", b.From).WithHint("sudo chmod %s %s", how, b.From)
	}
	return err
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

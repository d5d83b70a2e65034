package cell

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm/child"
)

// Command is the hidden command of our binary that becomes the program.
const Command = "cell"

// controlFD is the descriptor on which Open and Main talk; the plan's files
// follow it.
const controlFD = 3

// maxWord bounds what one side reads of the other, in bytes.
const maxWord = 256 << 10

// word is what Main says: that it is ready, with the tap beside it, or why not.
type word struct {
	Error *api.Error `json:"error,omitempty"`
}

// Cell is a running program in its cell.
type Cell struct {
	*child.Process
	// Tap is our end of the plan's tap: a read gives one frame, a write sends
	// one. The caller closes it.
	Tap *os.File
}

// Options of Open.
type Options struct {
	Self           string // the program with Command
	Stdout, Stderr io.Writer
	Files          []*os.File // see Plan.Files
	// Cgroup is the folder of the control group that it starts in; nil: ours.
	Cgroup *os.File
}

// Open starts the plan's program in a cell. It returns once the program runs; on
// an error nothing is left running. An error of kind unsupported means that this
// host does not let us have a cell.
func Open(ctx context.Context, plan Plan, o Options) (*Cell, error) {
	plan.Files = len(o.Files)
	if len(plan.Binds) > 0 {
		plan.Binds = append([]Bind{{From: plan.Program, To: programPath}}, plan.Binds...)
	}
	var spaces []*os.File
	if plan.UID != 0 {
		var err error
		if spaces, err = plan.lend(o.Self); err != nil {
			return nil, api.Errorf(api.KindInternal, "cannot make a cell: %w", err)
		}
		defer closeFiles(spaces)
		plan.Spaces = len(spaces)
	}
	control, theirs, err := child.Pair("cell")
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot make a cell: %w", err)
	}
	defer control.Close()
	defer theirs.Close()
	cmd := exec.Command(o.Self, Command)
	cmd.Stdout, cmd.Stderr = o.Stdout, o.Stderr
	cmd.ExtraFiles = slices.Concat([]*os.File{theirs}, o.Files, spaces)
	cmd.Env = []string{"GOGC=off", "GOMAXPROCS=1"} // it does not live long
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	if plan.UID == 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if o.Cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(o.Cgroup.Fd())
	}
	p, err := child.Start(cmd)
	if err != nil {
		return nil, refused(err)
	}
	theirs.Close()
	tap, err := furnish(ctx, control, plan)
	if err != nil {
		p.End()
		return nil, err
	}
	return &Cell{p, tap}, nil
}

// furnish is our part of the talk with Main.
func furnish(ctx context.Context, control *net.UnixConn, plan Plan) (tap *os.File, err error) {
	defer context.AfterFunc(ctx, func() { _ = control.SetDeadline(time.Unix(1, 0)) })()
	defer func() {
		if err == nil {
			return
		}
		if tap != nil {
			_ = tap.Close()
			tap = nil
		}
		var known *api.Error
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			err = api.Errorf(api.KindTimeout, "cannot make a cell: it does not get ready")
		case ctx.Err() != nil:
			err = api.Errorf(api.KindCancelled, "cannot make a cell: %w", ctx.Err())
		case !errors.As(err, &known):
			err = api.Errorf(api.KindInternal, "cannot make a cell: %w", err)
		}
	}()
	if err := json.NewEncoder(control).Encode(plan); err != nil {
		return nil, err
	}
	said, tap, err := hear(control)
	if err != nil {
		return tap, err
	}
	if said.Error != nil {
		return tap, said.Error
	}
	if (tap != nil) != (plan.Tap != nil) {
		return tap, errors.New("it handed out no tap")
	}
	// Having heard this it knows that we lived after it was bound to us.
	if _, err := control.Write([]byte{'\n'}); err != nil {
		return tap, err
	}
	// It closes the connection by becoming the program.
	rest, err := io.ReadAll(io.LimitReader(control, maxWord))
	if err != nil || len(rest) == 0 {
		return tap, err
	}
	var w word
	if err := json.Unmarshal(rest, &w); err != nil || w.Error == nil {
		return tap, errors.New("it does not start the program")
	}
	return tap, w.Error
}

// hear reads one word and the tap that may come with it.
func hear(control *net.UnixConn) (w word, tap *os.File, err error) {
	p, oob := make([]byte, maxWord), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := control.ReadMsgUnix(p, oob)
	if err != nil {
		return w, nil, err
	}
	if n == 0 {
		return w, nil, errors.New("it ended with no word")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return w, nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) == 0 {
			continue
		}
		if err := unix.SetNonblock(fds[0], true); err != nil {
			_ = unix.Close(fds[0])
			return w, nil, err
		}
		tap = os.NewFile(uintptr(fds[0]), "tap")
	}
	return w, tap, json.Unmarshal(p[:n], &w)
}

// refused says why the process could not be made.
func refused(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES) && !strings.Contains(err.Error(), "exec"):
		return unsupported(err)
	}
	return api.Errorf(api.KindInternal, "cannot make a cell: %w", err)
}

func unsupported(err error) *api.Error {
	return api.Errorf(api.KindUnsupported, "this host does not let us have namespaces of our own: %w", err).
		WithHint("sudo sysctl user.max_user_namespaces")
}

package child

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// waitDelay is how long the output of a process that is gone is waited for: a
// child of its own may hold it open.
const waitDelay = 2 * time.Second

// Process is a child bound to us: the kernel kills it when we die.
type Process struct {
	os   *os.Process
	done chan struct{}
	err  error // valid once done is closed
}

// Start launches the command, to which it adds what binds it to us.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.WaitDelay = waitDelay
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // a signal to our group is not for it
	p := &Process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// "Parent" in Pdeathsig means the thread: it has to live as long as
		// the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.os = cmd.Process
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// PID of the process.
func (p *Process) PID() int { return p.os.Pid }

// Done is closed when the process is gone and its output was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how it ended, nil for status 0; valid once Done is closed.
func (p *Process) Err() error { return p.err }

// Kill ends the process at once; it is no error when it ended before.
func (p *Process) Kill() error {
	if err := p.os.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// End kills the process and waits until it is gone.
func (p *Process) End() {
	_ = p.Kill()
	<-p.done
}

// Describe is how a process ended, for people.
func Describe(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

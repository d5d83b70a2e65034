package qemu

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is QEMU, bound to us: the kernel kills it when we die.
type process struct {
	os   *os.Process
	done chan struct{} // closed when it is gone and its output was read
	err  error         // how it ended, nil for status 0; valid once done is closed
}

// startProcess launches QEMU with the files as descriptors 3 and following.
func startProcess(path string, args []string, files []*os.File, out io.Writer) (*process, error) {
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = files
	cmd.Dir = "/"
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // a signal to our group is not for QEMU
	}
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// "Parent" in Pdeathsig means the thread: it has to live as long as
		// QEMU does.
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

// kill ends the process at once; it is no error when it ended before.
func (p *process) kill() error {
	if err := p.os.Kill(); err != nil && err != os.ErrProcessDone {
		return err
	}
	return nil
}

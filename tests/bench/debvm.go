package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// debvm is what users have today: Debian's package that makes an image with
// mmdebstrap and boots it under QEMU, reached by ssh.
type debvm struct {
	image, key string
	port       int
	cmd        *exec.Cmd
}

// boot starts the machine in emulation, as banger's own on such a host.
func (d *debvm) boot() error {
	d.cmd = exec.Command("debvm-run", "-i", d.image, "-s", strconv.Itoa(d.port), "--",
		"-machine", "accel=tcg", "-cpu", "max", "-m", "512M", "-smp", "1", "-snapshot")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return d.cmd.Start()
}

func (d *debvm) ssh(ctx context.Context) error {
	return quiet(ctx, "ssh", "-i", d.key, "-p", strconv.Itoa(d.port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2", "-o", "LogLevel=ERROR", "root@127.0.0.1", "true")
}

// firstCommand boots and asks until a command is answered.
func (d *debvm) firstCommand() error {
	if err := d.boot(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for {
		if err := d.ssh(ctx); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return fmt.Errorf("debvm never answered: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (d *debvm) kill() {
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	_ = d.cmd.Wait()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func benchDebvm(l *lab) ([]figure, error) {
	dir, err := os.MkdirTemp("", "banger-d")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	d := &debvm{image: filepath.Join(dir, "debvm.ext4"), key: filepath.Join(dir, "key")}
	if d.port, err = freePort(); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := quiet(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", d.key); err != nil {
		return nil, err
	}
	created, err := timed(func() error {
		return quiet(ctx, "debvm-create", "-k", d.key+".pub", "-o", d.image, "-r", "bookworm")
	})
	if err != nil {
		return nil, err
	}
	var boot, ours, theirs, exec []float64
	for range l.long() {
		t, err := timed(d.firstCommand)
		if err != nil {
			d.kill()
			return nil, err
		}
		boot = append(boot, t)
		t, err = timed(func() error { return d.ssh(ctx) })
		d.kill()
		if err != nil {
			return nil, err
		}
		theirs = append(theirs, t)

		var id string
		t, err = timed(func() error {
			vm, err := l.create()
			if err != nil {
				return err
			}
			id = vm.ID
			_, err = l.banger("vm", "exec", id, "--", "true")
			return err
		})
		if err != nil {
			return nil, err
		}
		ours = append(ours, t)
		t, err = timed(func() error { _, err := l.banger("vm", "exec", id, "--", "true"); return err })
		if err := errors.Join(err, l.delete(id)); err != nil {
			return nil, err
		}
		exec = append(exec, t)
	}
	faster := ratio("debvm: boot to the first command", boot, ours, "banger create, then exec", 5)
	faster.AtLeast, faster.Note = true, "times: debvm, then banger"
	command := ratio("debvm: ssh true", theirs, exec, "vm exec VM -- true", 0)
	command.Note = "times: debvm, then banger"
	return []figure{
		faster, command,
		{Name: "debvm-create", Value: created, Unit: "s", Note: "once; image pull is measured above"},
	}, nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
)

// rawPatience is when a raw boot counts as hung.
const rawPatience = 2 * time.Minute

// raw boots VMMs without banger: the same kernel and disks, an init that runs
// `true` and reboots.
type raw struct {
	dir            string
	kernel         layout.KernelDir
	root           string
	initrd, system string
	memory         int64
	boots          int
}

// newRaw prepares the files in dir.
func newRaw(ctx context.Context, dir, store string, memory int64) (*raw, error) {
	r := &raw{dir: dir, memory: memory, initrd: filepath.Join(dir, "raw.cpio"), system: filepath.Join(dir, "system.ext4")}
	var err error
	if r.kernel, err = storeKernel(store); err != nil {
		return nil, err
	}
	images, err := filepath.Glob(filepath.Join(store, "state", "images", "*", "rootfs.ext4"))
	if err != nil || len(images) == 0 {
		return nil, fmt.Errorf("cannot find an image in %s: %w", store, err)
	}
	r.root = images[0]
	if err := host.New(os.Getenv).MakeExt4(ctx, r.system, 8<<30); err != nil {
		return nil, err
	}
	return r, r.writeInitrd()
}

// rawModules are those of banger's that the two disks and the overlay need.
func rawModules() []string {
	var out []string
	for _, m := range []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "overlay"} {
		out = append(out, guestapi.ModulesPath+"/"+m+".ko")
	}
	return out
}

func (r *raw) writeInitrd() error {
	f, err := os.Create(r.initrd)
	if err != nil {
		return err
	}
	err = initramfs.WriteGuest(f, rawInit(rawModules()))
	if err == nil {
		var boot *os.File
		if boot, err = os.Open(r.kernel.BootModules()); err == nil {
			_, err = io.Copy(f, boot)
			boot.Close()
		}
	}
	return errors.Join(err, f.Close())
}

// disk makes the system disk of one boot; that is not timed.
func (r *raw) disk(ctx context.Context) (string, error) {
	r.boots++
	path := fmt.Sprintf("%s.%d", r.system, r.boots)
	return path, output(ctx, "cp", "--sparse=always", "--reflink=auto", r.system, path)
}

// qemu boots QEMU's microvm as banger's driver does, and gives the seconds from
// launch to exit.
func (r *raw) qemu(ctx context.Context, accelerator string) (float64, error) {
	system, err := r.disk(ctx)
	if err != nil {
		return 0, err
	}
	defer os.Remove(system)
	cpu := map[string]string{"kvm": "host", "tcg": "max,-erms,-fsrm"}[accelerator]
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "microvm,acpi=on,pit=on,rtc=on,pic=on,isa-serial=on,auto-kernel-cmdline=off,x-option-roms=off,mem-merge=off,dump-guest-core=off",
		"-accel", accelerator, "-cpu", cpu, "-smp", "1", "-m", fmt.Sprintf("%dM", r.memory>>20),
		"-kernel", r.kernel.VMLinux(), "-initrd", r.initrd, "-append", "console=ttyS0 panic=-1 random.trust_cpu=on quiet reboot=k",
		"-chardev", "null,id=console", "-serial", "chardev:console", "-device", "i8042",
		"-blockdev", "driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename=" + r.root, "-device", "virtio-blk-device,drive=disk0",
		"-blockdev", "driver=raw,node-name=disk1,file.driver=file,file.filename=" + system, "-device", "virtio-blk-device,drive=disk1",
	}
	return r.timed(ctx, exec.CommandContext(ctx, "qemu-system-x86_64", args...), nil)
}

// firecracker boots Firecracker by its API, and gives the seconds from launch to
// exit.
func (r *raw) firecracker(ctx context.Context) (float64, error) {
	system, err := r.disk(ctx)
	if err != nil {
		return 0, err
	}
	defer os.Remove(system)
	socket := filepath.Join(r.dir, "fc.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	type object = map[string]any
	calls := []struct {
		path string
		body object
	}{
		{"/machine-config", object{"vcpu_count": 1, "mem_size_mib": r.memory >> 20}},
		{"/boot-source", object{
			"kernel_image_path": r.kernel.VMLinux(), "initrd_path": r.initrd,
			"boot_args": "console=ttyS0 reboot=k panic=-1 random.trust_cpu=on quiet",
		}},
		{"/drives/root", object{"drive_id": "root", "path_on_host": r.root, "is_root_device": false, "is_read_only": true}},
		{"/drives/system", object{"drive_id": "system", "path_on_host": system, "is_root_device": false, "is_read_only": false}},
		{"/actions", object{"action_type": "InstanceStart"}},
	}
	return r.timed(ctx, exec.CommandContext(ctx, "firecracker", "--api-sock", socket), func(ctx context.Context) error {
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: false, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			for {
				var d net.Dialer
				conn, err := d.DialContext(ctx, "unix", socket)
				if err == nil || ctx.Err() != nil {
					return conn, err
				}
				time.Sleep(time.Millisecond) // Firecracker makes its socket soon
			}
		}}}
		defer c.CloseIdleConnections()
		for _, call := range calls {
			b, err := json.Marshal(call.body)
			if err != nil {
				return err
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://localhost"+call.path, bytes.NewReader(b))
			if err != nil {
				return err
			}
			resp, err := c.Do(req)
			if err != nil {
				return fmt.Errorf("PUT %s: %w", call.path, err)
			}
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // only told
			resp.Body.Close()
			if resp.StatusCode >= 300 {
				return fmt.Errorf("PUT %s: %s: %s", call.path, resp.Status, said)
			}
		}
		return nil
	})
}

// timed runs a VMM from launch to exit; then, if any, speaks to it meanwhile.
func (r *raw) timed(ctx context.Context, cmd *exec.Cmd, then func(context.Context) error) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, rawPatience)
	defer cancel()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	var err error
	if then != nil {
		if err = then(ctx); err != nil {
			cmd.Process.Kill()
		}
	}
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	took := time.Since(began).Seconds()
	if ctx.Err() != nil {
		err = fmt.Errorf("the guest did not run `true` and reboot within %s", rawPatience)
	}
	if err != nil {
		return 0, fmt.Errorf("raw %s: %w: %s", filepath.Base(cmd.Path), err, tail(strings.TrimSpace(said.String()), 2<<10))
	}
	return took, nil
}

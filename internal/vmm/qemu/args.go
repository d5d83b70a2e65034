package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
)

// The descriptors QEMU inherits beside its stdio.
const (
	fdQMP     = 3 // connected: the machine protocol
	fdConsole = 4 // connected: the guest's serial port
	fdLink    = 5 // the guest link: a listening socket, or vhost-vsock with its context id set
	fdState   = 6 // with a template: its state
)

// transports is how many virtio devices the microvm machine has places for.
const transports = 8

// memory is the file that a guest's memory is, instead of none.
type memory struct {
	path   string
	shared bool // what the guest writes goes into the file
}

// arguments is QEMU's command line for a machine that validate has nothing
// against; cid is for a guest link over vsock.
func arguments(spec vmm.Spec, khz int64, cid uint32, mem memory) []string {
	accel, cpu := "kvm", "host"
	if spec.Accelerator == vmm.TCG {
		// TCG runs a string instruction byte by byte: a guest told that it has
		// fast ones copies at half the speed of one that uses ordinary moves.
		accel, cpu = "tcg,thread=multi,tb-size=64", "max,-erms,-fsrm"
	}
	args := []string{
		"-name", "guest=banger-" + spec.ID,
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-S", // until we listen: no event shall be missed
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		// ACPI describes the virtio devices to the kernel; without the timers
		// and the interrupt controller a stock kernel does not get far, without
		// the clock it starts in 1970.
		"-machine", "microvm,acpi=on,pit=on,rtc=on,pic=on,isa-serial=on,auto-kernel-cmdline=off,x-option-roms=off,mem-merge=off,dump-guest-core=off",
		"-accel", accel,
		"-cpu", cpu,
		"-smp", strconv.Itoa(spec.VCPUs),
		"-m", fmt.Sprintf("size=%dk", spec.MemoryBytes>>10),
		"-kernel", spec.Kernel,
		"-append", strings.Join(append(kernelParameters(spec.Accelerator, khz), spec.Cmdline...), " "),
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fdQMP),
		"-mon", "chardev=qmp,mode=control",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", fdConsole),
		"-serial", "chardev:console",
		"-device", "i8042", // the keyboard controller: ctrl-alt-del
	}
	if mem.path != "" {
		args = append(args, "-machine", "memory-backend="+memoryNode, "-object", jsonArg(map[string]any{
			"qom-type": "memory-backend-file", "id": memoryNode, "size": spec.MemoryBytes >> 10 << 10, "mem-path": mem.path, "share": mem.shared,
		}))
	}
	if spec.Template != nil {
		args = append(args, "-incoming", "defer")
	}
	if spec.Initrd != "" {
		args = append(args, "-initrd", spec.Initrd)
	}

	// QEMU gives each device the highest free virtio bus, and the kernel finds
	// the highest first: the order here is the order there. (A disk on bus 0
	// gets no interrupts, so naming the buses is no way to choose an order.)
	device := func(v map[string]any) { args = append(args, "-device", jsonArg(v)) }
	for i, d := range spec.Disks {
		id, file := diskNode(i), "file"
		if d.Block {
			file = "host_device"
		}
		args = append(args, "-blockdev", jsonArg(map[string]any{
			"driver": "raw", "node-name": id, "read-only": d.ReadOnly, "discard": "unmap",
			"file": map[string]any{"driver": file, "filename": d.Path, "aio": "threads", "discard": "unmap", "cache": map[string]any{"no-flush": d.Fleeting}},
		}))
		// A full host disk stops the guest, and no write of its is lost; other
		// errors are the guest's to handle.
		v := map[string]any{"driver": "virtio-blk-device", "id": id, "drive": id, "serial": d.Serial}
		if !d.ReadOnly {
			v["werror"], v["rerror"] = "enospc", "report"
		}
		device(v)
	}
	if spec.Transport == guestapi.TransportVsock {
		device(map[string]any{"driver": "vhost-vsock-device", "vhostfd": strconv.Itoa(fdLink), "guest-cid": cid})
	} else {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=link,fd=%d,server=on,wait=off", fdLink))
		device(map[string]any{"driver": "virtio-serial-device", "id": "serial", "max_ports": 2})
		args = append(args, "-device", jsonArg(map[string]any{
			"driver": "virtserialport", "chardev": "link", "name": guestapi.PortName, "bus": "serial.0", "nr": 1,
		}))
	}
	if n := spec.Network; n != nil {
		args = append(args, "-netdev", jsonArg(map[string]any{
			"type": "stream", "id": "net", "server": false, "addr": map[string]any{"type": "unix", "path": n.Socket},
		}))
		v := map[string]any{"driver": "virtio-net-device", "netdev": "net", "mac": n.MAC}
		if n.MTU > 0 {
			v["host_mtu"] = n.MTU
		}
		device(v)
	}
	return args
}

// memoryNode is QEMU's name for the memory.
const memoryNode = "memory"

// diskNode is QEMU's name for the disk of that place in the spec, and for its device.
func diskNode(i int) string { return fmt.Sprintf("disk%d", i) }

// jsonArg is an argument in QEMU's JSON form, in which no character of a path
// has a meaning.
func jsonArg(v map[string]any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and maps of them always encode
	}
	return string(b)
}

// validate refuses what QEMU would misread or not understand.
func validate(spec vmm.Spec) error {
	invalid := func(format string, args ...any) error {
		return api.Errorf(api.KindInvalid, "cannot start machine %q: "+format, append([]any{spec.ID}, args...)...)
	}
	switch {
	case spec.ID == "" || strings.ContainsAny(spec.ID, ",/ \n"):
		return invalid("its id is empty or has characters an id does not have")
	case spec.VCPUs < 1 || spec.VCPUs > 255:
		return invalid("%d processors are not between 1 and 255", spec.VCPUs)
	case spec.MemoryBytes < 64<<20:
		return invalid("%d bytes of memory are less than 64 MiB", spec.MemoryBytes)
	case spec.Accelerator != vmm.KVM && spec.Accelerator != vmm.TCG:
		return invalid("accelerator %q is neither kvm nor tcg", spec.Accelerator)
	case spec.Kernel == "":
		return invalid("no kernel given")
	case spec.Limits.Wrong() != "":
		return invalid("%s", spec.Limits.Wrong())
	case spec.RunDir == "":
		return invalid("no folder for sockets given")
	case spec.Transport == guestapi.TransportVsock && spec.LinkToken == "":
		return invalid("a guest link over vsock needs a token: other users of the host reach the guest")
	case spec.Transport != "" && spec.Transport != guestapi.TransportSerial && spec.Transport != guestapi.TransportVsock:
		return invalid("QEMU has no guest link over %q", spec.Transport)
	}
	if spec.Template != nil && (spec.Wake == nil || spec.Transport == guestapi.TransportVsock) {
		return invalid("a machine of a template needs to be told what to be, by virtio-serial")
	}
	devices := len(spec.Disks) + 1
	if spec.Network != nil {
		devices++
	}
	if devices > transports {
		return invalid("%d devices are more than the %d this machine has places for", devices, transports)
	}
	for _, d := range spec.Disks {
		if len(d.Serial) > 20 {
			return invalid("disk serial %q is longer than 20 bytes", d.Serial)
		}
	}
	return nil
}

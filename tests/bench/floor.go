package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/initramfs"
)

// rebootInit is a program of a few instructions: reboot(RB_AUTOBOOT), for the
// floor under every boot.
func rebootInit() []byte {
	code := []byte{
		0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, 169 (reboot)
		0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, 0xfee1dead
		0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, 672274793
		0xba, 0x67, 0x45, 0x23, 0x01, // mov edx, 0x01234567
		0x4d, 0x31, 0xd2, // xor r10, r10
		0x0f, 0x05, // syscall
		0xeb, 0xfe, // jmp .
	}
	const base, headers = 0x400000, 64 + 56
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), uint64(base + headers), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), uint64(headers + len(code)), uint64(headers + len(code)), uint64(0x1000),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v) // a buffer takes all
	}
	b.Write(code)
	return b.Bytes()
}

// floor gives the command line of raw QEMU with the flags, kernel and memory
// banger used for vm, and an init that reboots at once.
func (l *lab) floor(vm api.VM) ([]string, error) {
	argv, err := vmmCommand(vm.ID)
	if err != nil {
		return nil, err
	}
	initrd := filepath.Join(l.root, "floor.cpio")
	f, err := os.Create(initrd)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(initramfs.WriteGuest(f, rebootInit()), f.Close()); err != nil {
		return nil, err
	}
	keep := map[string]bool{
		"-name": true, "-display": true, "-sandbox": true, "-machine": true, "-accel": true,
		"-cpu": true, "-smp": true, "-m": true, "-kernel": true, "-append": true,
	}
	args := []string{argv[0]}
	for i := 1; i < len(argv); i++ {
		switch {
		case argv[i] == "-nodefaults" || argv[i] == "-no-user-config" || argv[i] == "-no-reboot":
			args = append(args, argv[i])
		case keep[argv[i]] && i+1 < len(argv):
			args = append(args, argv[i], argv[i+1])
		}
	}
	return append(args, "-initrd", initrd, "-chardev", "null,id=console", "-serial", "chardev:console", "-device", "i8042"), nil
}

// vmmCommand is the command line of the VMM that runs the VM.
func vmmCommand(id string) ([]string, error) {
	pid, err := findProcess("qemu-system", "banger-"+id)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), nil
}

func findProcess(words ...string) (int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		all := err == nil
		for _, w := range words {
			all = all && bytes.Contains(cmdline, []byte(w))
		}
		if all {
			var pid int
			_, err := fmt.Sscan(filepath.Base(dir), &pid)
			return pid, err
		}
	}
	return 0, fmt.Errorf("no process with %q", words)
}

// benchRun compares the main job with that floor: machines that boot, as the first
// of their kind does, and those that go on from a template, as all others do.
func benchRun(l *lab) (figures []figure, err error) {
	defer func() { err = errors.Join(err, l.restart()) }()
	if err := l.restart("BANGER_TEMPLATES=false"); err != nil {
		return nil, err
	}
	vm, err := l.create()
	if err != nil {
		return nil, err
	}
	floor, err := l.floor(vm)
	if err != nil {
		return nil, err
	}
	if err := l.delete(vm.ID); err != nil {
		return nil, err
	}
	run := func() error {
		_, err := l.banger("vm", "run", "--rm", "--vcpu", "1", "--memory", "512M", "--", "true")
		return err
	}
	raw := func() error { return quiet(context.Background(), floor[0], floor[1:]...) }
	const baseline = "raw QEMU, an init that reboots"
	ours, theirs, err := l.pairs(run, raw)
	if err != nil {
		return nil, err
	}
	figures = append(figures, ratio("vm run --rm -- true, the first of its kind", ours, theirs, baseline, 0))
	if err := l.restart(); err != nil {
		return figures, err
	}
	if err := l.awaitTemplate(run); err != nil {
		return figures, err
	}
	ours, theirs, err = l.pairs(run, raw)
	return append(figures, ratio("vm run --rm -- true", ours, theirs, baseline, 1.5)), err
}

// awaitTemplate runs until a run goes on from a template, and nothing is made in the
// background.
func (l *lab) awaitTemplate(run func() error) error {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		making, _ := filepath.Glob(filepath.Join(l.layout.Templates(), "new-*"))
		if len(making) > 0 {
			continue
		}
		var events []api.Event
		out, err := l.banger("events", "--json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &events)
		}
		if err != nil {
			return err
		}
		for _, e := range slices.Backward(events) {
			if e.Kind == "vm.started" && e.Data["template"] == "true" {
				return nil
			}
			if e.Kind == "vm.started" {
				break
			}
		}
		if err := run(); err != nil {
			return err
		}
	}
	return errors.New("no template was made within 2 minutes")
}

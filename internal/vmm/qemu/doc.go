// Package qemu drives qemu-system-x86_64: the microvm machine under KVM or
// software emulation, with no default devices and the seccomp sandbox on.
//
// It owns the QEMU process from launch to exit, its control channel (package
// qmp), the guest's console and the guest link over virtio-serial. It knows no
// VM record, no image and no network beyond the socket it is given.
//
// Start at Driver.Start; args.go is the command line, machine.go what runs.
package qemu

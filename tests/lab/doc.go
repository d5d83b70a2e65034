// Command lab makes a host with a working /dev/kvm where there is none: a
// Debian in QEMU's emulation, which emulates AMD-V too. What needs KVM, root,
// device-mapper, nftables, cgroups or systemd runs in it for real.
//
//	lab run [flags] [--] CMD…      one command in a fresh lab (make lab CMD=…)
//	lab shell [flags]              a shell in it (make lab-shell)
//	lab suite [-direct]            the rows of rows.json, counted (make lab)
//	lab build                      host image, store and Firecracker into the cache
//
// The lab host is one of banger's own machines, started here with the driver of
// internal/vmm/qemu and answered by banger-guest: machine.go. What lies in it:
// host.go (the image), store.go (banger's image and kernel), carry.go (programs
// and test binaries), setup.sh (the first thing that runs). docs/guides/lab.md
// is the guide.
package main

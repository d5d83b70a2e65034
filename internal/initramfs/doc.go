// Package initramfs writes what a guest boots from: the guest binary, the boot
// modules of a kernel and the configuration of one start, as cpio archives laid
// end to end. The kernel unpacks them in order. Start at Write.
package initramfs

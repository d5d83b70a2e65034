// Package vmm says what a virtual machine monitor is to banger: the Driver
// interface, its phases and its capability flags. The drivers are the packages
// below it (firecracker, qemu, fake); the suite that proves each sentence here for every one
// of them is vmmtest. It knows no VM record and no image, only files and sizes.
package vmm

// Package mapper makes writable snapshots of read-only files with the kernel's
// device-mapper, over loop devices: a device of its owner's name that reads as the
// file, followed by zeros up to its size, and keeps what is written in another
// file. It needs root. It knows no VM and no file system.
//
// Nothing of it outlives its use. A snapshot's device is there as long as somebody
// has it open, and the kernel removes it with the last, its loop devices with it:
// whoever dies, at whatever moment, leaves nothing but for the instant between the
// making of a device and the mark that says so, and Release sees to that. After a
// crash of the host there is nothing to see to.
//
// Devices are ours by their UUID, which names the folder of our state and the
// owner; loop devices by the descriptor that made them. No other is ever touched:
// removing goes by UUID, and a name that is taken is an error.
//
// Start at Open. dm.go and loop.go speak to the kernel, by ioctl: neither dmsetup
// nor losetup is needed, and the udev of the host is told to leave the devices
// alone, for what is on them is a guest's.
package mapper

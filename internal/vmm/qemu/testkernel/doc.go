// Package testkernel makes kernels for tests of the QEMU driver and of what is
// above it: a few bytes of machine code that print, power off, reset or hang in
// the real QEMU, in a tenth of a second and with no Linux. Start at Program.
package testkernel

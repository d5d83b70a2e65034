// Package firecracker drives Firecracker: one process for each machine, in a cell
// of its own (package cell), told what to be over its API (fcapi). The guest link
// is vsock, through Firecracker's Unix socket; the network is a tap whose other
// end the machine hands out.
//
// It knows files and sizes, no VM record. Start at Driver.Start.
package firecracker

// Package guestlink is the host's end of the guest link: Mux carries many
// streams over the one byte stream a virtio-serial port is, and Client speaks
// the agent's API (package guestapi) over streams from wherever they come.
//
// Everything that arrives here was written by a guest and is not to be trusted:
// replies and frames are bounded, error messages are made printable. The package
// starts no process and knows no VMM. Start at Client; internal/guest is the
// other end, file by file.
package guestlink

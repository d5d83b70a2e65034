// Package qmp speaks QEMU's machine protocol over one connection: greeting,
// capabilities, commands with their replies, events. It knows no machine and no
// process; it never dials. Lines are bounded, and whatever QEMU says that is not
// the protocol ends the connection with an error. Start at New.
package qmp

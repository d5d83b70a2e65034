// Package guestapi is what host and guest say to each other: the boot
// configuration the guest finds in its initramfs, the requests of the agent's
// HTTP API, and the frames of an exec stream. Both ends import it and nothing
// else of each other. Protocol is the generation; a change that an older agent
// or host could not follow raises it.
//
// The agent serves plain HTTP/1.1 on every stream of the guest link:
//
//	GET  /v1/health    Health
//	POST /v1/exec      Upgrade: banger-exec; then frames, see Frame
//	POST /v1/shutdown  Shutdown; answers when the processes are gone and the disks are clean, then powers off
//	POST /v1/sync      flushes the file systems
//	POST /v1/time      Time; moves the clock, answers TimeReply
//	POST /v1/grow      Grow; enlarges a mounted file system to its disk
//	GET  /v1/stats     Stats
//
// Errors are api.ErrorReply with the HTTP status of their kind.
package guestapi

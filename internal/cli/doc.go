// Package cli is the command line: it turns words into requests to the daemon
// and the daemon's answers into what people and scripts read. One file per
// command; what a command prints goes through ui. It owns the auto-start of the
// daemon, the terminal while a command in a VM uses it, and the exit codes. It
// must not hold state between calls, nor know how the daemon does its work.
// Start reading at main.go, then root.go.
package cli

// Package keeper is the process that owns one running VM: `banger keeper`. It
// starts the VMM bound to itself, so that the VMM never outlives it, and holds
// what the VM needs while it runs: the user network, the console log, the doors
// to the guest. It lives until the VM ends, independent of the daemon, and its
// last act is the exit file.
//
// The other half of the package is the daemon's side of it: Launch starts a
// keeper, Attach finds a running one, Client talks to it.
//
// A keeper knows no store and no image; all it is told is Config. Start at Run.
package keeper

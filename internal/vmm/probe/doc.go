// Package probe finds out what really runs guests on this host. That /dev/kvm is
// there, opens and answers proves nothing: on some hosts no stock kernel comes up
// under it. So a tiny real guest is booted, against the clock, and killed hard;
// the verdict is kept for as long as neither host boot nor VMM change.
//
// It knows the vmm.Driver interface and no driver. Start at Run.
package probe

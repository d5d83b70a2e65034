// Package network is the guest's user-mode network: a TCP/IP stack of our own
// process (gVisor's) at the other end of the guest's network device, that turns
// the guest's connections into ordinary connections of this process. It needs no
// privilege. The guest reaches what this host reaches, with three exceptions:
// nothing on the host's loopback, nothing link-local, and of the gateway only
// its name server, which hands queries to the host's resolvers.
//
// What the guest sends is hostile: frames are bounded and checked before the
// stack sees them (wire.go), destinations before anything is dialled
// (policy.go), connections are counted (network.go).
//
// It knows no VM and no driver. Start at User, then Start.
package network

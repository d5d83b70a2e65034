// Package daemon is the composition root and the HTTP door of banger.
//
// It owns the lock that makes one daemon the only one on its root, the socket,
// the routes and the bus of events; it wires store, operations, images, kernels
// and VMs to each other and starts and ends them in order. It decides nothing
// about VMs or images itself: a handler reads the request, asks one noun, writes
// the reply. Start at Run in daemon.go and serve in serve.go, then routes.go, the one table of all
// routes, and wiring.go.
package daemon

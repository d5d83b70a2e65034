// Package store keeps banger's durable records: VMs, images, kernels, the
// journal of operations, and events.
//
// It owns one SQLite database and its schema. It knows what a record looks like
// and which names are taken, but not what a record means: it starts nothing,
// touches no disk image and observes no process. What is momentarily true (pids,
// sockets) never comes in here. Why it is built so: docs/adr/0003-store.md.
// Start reading at types.go, then db.go, then table.go.
package store

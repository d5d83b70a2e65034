// Package vm owns the life of machines: their records and statuses, disks,
// handle files, create reservations, commands run in them, logs and pruning.
//
// It decides what a verb may do to a machine in a status (gate.go), asks
// keepers to start and end VMMs, and observes them. It pulls no images (Images,
// Kernels), starts no process itself (Keepers, Host), and speaks to guests
// through the guest link only. It knows neither HTTP nor terminals.
//
// Lock order: a machine's lock (one verb at a time, held for as long as a boot)
// → the reservation lock (milliseconds: exact-name check and insert) → the
// leaf mutex of Manager or of a machine, under which nothing blocks.
//
// Start reading at manager.go, then create.go and boot.go.
package vm

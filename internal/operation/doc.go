// Package operation runs work that can outlive the request that began it: named
// steps, each with its undo, journalled so that a daemon that dies in the middle
// finds its way on, or back.
//
// It owns the order of things (journal before side effect, undo in reverse), the
// progress and the record; it knows no VM and no image. The rules every step
// obeys are in README.md beside this file. Start reading at registry.go, then
// run.go.
package operation

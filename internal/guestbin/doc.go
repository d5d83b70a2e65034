// Package guestbin holds the guest binary that was built into this one: zstd
// compressed, put into the folder embed by `make build` and not checked in.
// Everything compiles without it; then Open says what to run. Start at Open.
package guestbin

// Package fcapi speaks the API of one Firecracker: HTTP over a Unix socket, as
// the project's swagger file describes it, as much of it as banger uses. What it
// reads is bounded. It knows no machine. Start at New.
package fcapi

// Package api holds the wire types of banger's HTTP API, version 1: requests,
// replies, error kinds and status names.
//
// It holds no logic beyond what a reader of an error needs (kind to HTTP
// status, kind to exit code) and imports the standard library only, so that
// any Go program may use it. Keys are snake_case, sizes are bytes, times are
// RFC 3339 in UTC. Keys are only ever added, and a reader must tolerate unknown
// values of an enumeration. Start reading at vm.go.
package api

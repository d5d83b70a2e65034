// Package client is the public Go client of banger's HTTP API.
//
// A Client talks to one daemon over its Unix socket. Every method is one route;
// errors are *api.Error, so that a caller can ask for the kind. Long work comes
// back as an api.Operation: WatchOperation follows it to its end. Exec and Run
// give a Stream, which carries a command's input and output.
//
// The package imports api and nothing else of banger; it starts no daemon and
// prints nothing. Start reading at client.go, for commands at stream.go.
package client

// Package config reads banger's configuration: built-in defaults that depend on
// the host, config.toml, and BANGER_… variables, each over the one before. It
// also owns how sizes and durations are written, for the command line too.
//
// It writes nothing, and knows what a value may be but not what it does. A key
// is one entry of the table in keys.go: start reading there.
package config

package api

import "time"

// Daemon is the daemon's account of itself.
type Daemon struct {
	PID        int       `json:"pid"`
	Version    string    `json:"version"`
	Build      string    `json:"build"` // identifies the binary: differs when CLI and daemon differ
	Socket     string    `json:"socket"`
	StateDir   string    `json:"state_dir"`
	VMs        int       `json:"vms"`
	Operations int       `json:"operations"` // running ones
	DNSAddress string    `json:"dns_address"`
	StartedAt  time.Time `json:"started_at"`
}

// Version is what `banger version --json` prints.
type Version struct {
	Version string  `json:"version"`
	Build   string  `json:"build"`
	Go      string  `json:"go"`
	Daemon  *Daemon `json:"daemon"`
}

// Statuses of a Check.
const (
	CheckPass = "pass"
	CheckWarn = "warn"
	CheckFail = "fail"
	CheckSkip = "skip"
)

// Check is one line of `banger doctor`.
type Check struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// ConfigValue is one line of `banger config show`.
type ConfigValue struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Source string `json:"source"` // default, file, environment
}

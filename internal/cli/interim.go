package cli

import (
	"time"

	"github.com/docker/go-units"
)

// Until internal/config lands.
type interim struct{}

var config interim

func (interim) ParseMemory(s string) (int64, error) { return units.RAMInBytes(s) }
func (interim) ParseDisk(s string) (int64, error)   { return units.RAMInBytes(s) }
func (interim) ParseDuration(s string) (time.Duration, error) {
	return time.ParseDuration(s)
}

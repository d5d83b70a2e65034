package vm

import (
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/store"
)

// The real ones fit the seams.
var (
	_ Host  = (*host.Real)(nil)
	_ Store = (*store.DB)(nil)
)

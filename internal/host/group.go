package host

import "github.com/bangervm/banger/internal/host/cgroup"

// RemoveGroup removes the control group of that name, with what runs in it; none
// is no error.
func (h *Real) RemoveGroup(name string) error { return cgroup.Remove(name) }

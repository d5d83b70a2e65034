package qemu

import (
	"context"

	"github.com/bangervm/banger/internal/vmm"
)

// limit bounds what the guest takes of its disks, before it runs. The bounds are
// the devices', not filters beneath them: a filter would count what the guest
// discards as if it were written, and hold a disk up for minutes over an fstrim.
func (m *Machine) limit(ctx context.Context, spec vmm.Spec) error {
	if spec.Limits == (vmm.Limits{}) {
		return nil
	}
	bytes, operations := spec.Limits.DiskBytesPerSecond, spec.Limits.DiskOperationsPerSecond
	for i := range spec.Disks {
		v := map[string]any{
			"id": diskNode(i), "bps": bytes, "bps_rd": 0, "bps_wr": 0, "iops": operations, "iops_rd": 0, "iops_wr": 0,
		}
		// Without a burst a tenth of a second's worth may come at once; one as large
		// as the limit means a second's.
		if bytes > 0 {
			v["bps_max"] = bytes
		}
		if operations > 0 {
			v["iops_max"] = operations
		}
		if err := m.qmp.Execute(ctx, "block_set_io_throttle", v, nil); err != nil {
			return err
		}
	}
	return nil
}

package firecracker

import (
	"slices"
	"testing"

	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/cell"
)

// Of the devices of the host a cell opens those that are a disk of its machine.
func TestADiskMayBeABlockDevice(t *testing.T) {
	t.Parallel()
	_, binds := placesOf(vmm.Spec{RunDir: "/r", Disks: []vmm.Disk{{Path: "/dev/dm-3", Block: true}, {Path: "/d/work"}}}, "/dev/kvm", true)
	for _, want := range []cell.Bind{
		{From: "/dev/dm-3", To: "/disk0", Writable: true, Device: true}, {From: "/d/work", To: "/disk1", Writable: true},
	} {
		if !slices.Contains(binds, want) {
			t.Errorf("no %+v in %+v", want, binds)
		}
	}
}

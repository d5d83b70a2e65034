package qemu

import (
	"strings"
	"testing"

	"github.com/bangervm/banger/internal/vmm"
)

// QEMU refuses a block device as a file.
func TestADiskMayBeABlockDevice(t *testing.T) {
	t.Parallel()
	args := strings.Join(arguments(vmm.Spec{
		ID: "x", VCPUs: 1, MemoryBytes: 1 << 30, Accelerator: vmm.KVM,
		Disks: []vmm.Disk{{Path: "/dev/dm-3", Serial: "root", Block: true}, {Path: "/d/work", Serial: "work"}},
	}, 0, 0, memory{}), "\n")
	for _, want := range []string{`"driver":"host_device","filename":"/dev/dm-3"`, `"driver":"file","filename":"/d/work"`} {
		if !strings.Contains(args, want) {
			t.Errorf("no %s in\n%s", want, args)
		}
	}
}

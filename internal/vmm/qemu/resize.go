package qemu

import (
	"context"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

var _ vmm.Resizer = (*Machine)(nil)

// Resize tells QEMU, and QEMU the guest, that a disk has grown.
func (m *Machine) Resize(ctx context.Context, serial string, bytes int64) error {
	disk, ok := m.disks[serial]
	switch {
	case !ok:
		return api.Errorf(api.KindNotFound, "cannot resize a disk of %s: it has no writable disk %q", m.id, serial)
	case bytes < disk.bytes:
		return api.Errorf(api.KindInvalid, "cannot resize disk %q of %s: %d bytes are less than the %d it has", serial, m.id, bytes, disk.bytes)
	}
	return m.execute(ctx, "resize a disk of", "block_resize", map[string]any{"node-name": disk.node, "size": bytes})
}

// disk is a writable disk of a machine.
type disk struct {
	node  string // QEMU's name for it
	bytes int64  // when the machine was started
}

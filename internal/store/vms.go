package store

import (
	"context"

	"github.com/bangervm/banger/api"
)

var vms = table[VM]{name: "vms", noun: "VM", show: "banger vm show", requests: true, keys: func(v *VM) keys {
	return keys{id: v.ID, name: v.Name, requestID: v.RequestID, created: v.CreatedAt}
}, more: []string{"image_id", "kernel_id"}, values: func(v *VM) []any {
	return []any{null(v.ImageID), null(v.KernelID)}
}, check: madeFrom}

// InsertVM stores a new VM. It is of kind exists when the exact name, the id or
// the request id is taken, when the name is another VM's id, or the other way
// round. Prefixes do not matter. It is of kind not-found when the image or the
// kernel it names is not in the store.
func (d *DB) InsertVM(ctx context.Context, v VM) error { return vms.insert(ctx, d, v) }

// UpdateVM lets f change the record and stores it, with nothing in between; a
// new name is checked as InsertVM does. An error of f comes back as it is and
// nothing is stored. f must be quick and must not write to the store.
func (d *DB) UpdateVM(ctx context.Context, id string, f func(*VM) error) (VM, error) {
	return vms.change(ctx, d, id, f)
}

// VM reads the VM with the exact id.
func (d *DB) VM(ctx context.Context, id string) (VM, error) { return vms.by(ctx, d, "id", id) }

// VMByName reads the VM with the exact name.
func (d *DB) VMByName(ctx context.Context, name string) (VM, error) {
	return vms.by(ctx, d, "name", name)
}

// VMByRequestID reads the VM that the request with this id made.
func (d *DB) VMByRequestID(ctx context.Context, id string) (VM, error) {
	return vms.by(ctx, d, "request_id", id)
}

// VMs lists all VMs, oldest first. One whose record cannot be read is listed as
// broken, with its id, its name and the error, and nothing else.
func (d *DB) VMs(ctx context.Context) ([]VM, error) {
	return vms.all(ctx, d, func(id, name string, err *api.Error) (VM, bool) {
		return VM{ID: id, Name: name, Status: api.StatusBroken, Error: err}, true
	})
}

// DeleteVM forgets the VM, also one whose record cannot be read.
func (d *DB) DeleteVM(ctx context.Context, id string) error { return vms.remove(ctx, d, id, "") }

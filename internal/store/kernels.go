package store

import (
	"context"

	"github.com/bangervm/banger/api"
)

var kernels = table[Kernel]{name: "kernels", noun: "kernel", show: "banger kernel show", keys: func(k *Kernel) keys {
	return keys{id: k.ID, name: k.Name, created: k.CreatedAt}
}}

// InsertKernel stores a new kernel; see InsertVM for what exists means. A kernel
// may have no name: one whose name passed to a newer kernel, but which VMs use.
func (d *DB) InsertKernel(ctx context.Context, k Kernel) error { return kernels.insert(ctx, d, k) }

// PublishKernel stores a kernel, or replaces the one with its id, and gives it its
// name, in one transaction. When the name is another kernel's, take decides with
// its error whether it passes to this one and leaves the other nameless; a nil
// take refuses with kind exists.
func (d *DB) PublishKernel(ctx context.Context, k Kernel, take func(holder Kernel) error) error {
	return kernels.publish(ctx, d, k, func(k *Kernel) { k.Name = "" }, take)
}

// UpdateKernel is to kernels what UpdateVM is to VMs.
func (d *DB) UpdateKernel(ctx context.Context, id string, f func(*Kernel) error) (Kernel, error) {
	return kernels.change(ctx, d, id, f)
}

// Kernel reads the kernel with the exact id.
func (d *DB) Kernel(ctx context.Context, id string) (Kernel, error) {
	return kernels.by(ctx, d, "id", id)
}

// KernelByName reads the kernel with the exact name. Only an error of kind
// not-found means that there is none.
func (d *DB) KernelByName(ctx context.Context, name string) (Kernel, error) {
	return kernels.by(ctx, d, "name", name)
}

// Kernels lists all kernels, oldest first. One whose record cannot be read is
// left out and logged; KernelByName and Check report it.
func (d *DB) Kernels(ctx context.Context) ([]Kernel, error) {
	return kernels.all(ctx, d, func(id, _ string, err *api.Error) (Kernel, bool) {
		d.log.WarnContext(ctx, "kernel left out of the list", "kernel", id, "error", err)
		return Kernel{}, false
	})
}

// DeleteKernel forgets the kernel, not its files. It is of kind bad-state, and
// names the VMs, while VMs use it: look-up, check and removal are one
// transaction, as the insertion of a VM is.
func (d *DB) DeleteKernel(ctx context.Context, id string) error {
	return kernels.remove(ctx, d, id, "kernel_id")
}

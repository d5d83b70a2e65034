package store

import (
	"context"
	"database/sql"
	"strings"

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
// names them, while VMs or images use it: look-up, check and removal are one
// transaction, as the insertion of a VM is.
func (d *DB) DeleteKernel(ctx context.Context, id string) error {
	return kernels.remove(ctx, d, id, "kernel_id", noImageNames)
}

// KernelInUse is the error that DeleteKernel would give for a kernel that VMs or
// images use; nil where none does.
func (d *DB) KernelInUse(ctx context.Context, id string) error {
	tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return d.fail(err, "look who uses kernel %s", id)
	}
	defer func() { _ = tx.Rollback() }() // it only read
	users, err := vmsWith(ctx, tx, "kernel_id", id)
	if err == nil && len(users) > 0 {
		return inUse("kernel", kernels.called(ctx, tx, id), users)
	}
	if err == nil {
		err = noImageNames(ctx, tx, id)
	}
	return d.failOwn(err, "look who uses kernel %s", id)
}

// noImageNames refuses a kernel that images name.
func noImageNames(ctx context.Context, tx *sql.Tx, id string) error {
	rows, err := tx.QueryContext(ctx, `SELECT k.name, n.name FROM kernels k JOIN image_names n ON json_valid(n.record) AND n.record->>'$.kernel'=k.name
		WHERE k.id=? ORDER BY n.name`, id)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var kernel string
	var names []string
	for rows.Next() {
		var image string
		if err := rows.Scan(&kernel, &image); err != nil {
			return err
		}
		names = append(names, image)
	}
	if err := rows.Err(); err != nil || len(names) == 0 {
		return err
	}
	e := api.Errorf(api.KindBadState, "cannot delete kernel %q: images use it: %s", kernel, strings.Join(names, ", ")).WithHint("banger image list")
	e.Candidates = names
	return e
}

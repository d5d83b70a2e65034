package store

import (
	"context"
	"errors"

	"github.com/bangervm/banger/api"
)

// checkRecords tries to read every record and joins what went wrong.
func (d *DB) checkRecords(ctx context.Context) error {
	return errors.Join(unreadable(ctx, d, vms), unreadable(ctx, d, images), unreadable(ctx, d, kernels), unreadable(ctx, d, operations))
}

func unreadable[T any](ctx context.Context, d *DB, t table[T]) error {
	var bad []error
	_, err := t.all(ctx, d, func(_, _ string, err *api.Error) (none T, listed bool) {
		bad = append(bad, err)
		return none, false
	})
	return errors.Join(append(bad, err)...)
}

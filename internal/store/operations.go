package store

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/bangervm/banger/api"
)

var operations = table[Operation]{name: "operations", noun: "operation", show: "banger operation show", nameless: true, keys: func(o *Operation) keys {
	return keys{id: o.ID, created: o.CreatedAt}
}}

// SaveOperation writes the journal of an operation, new or known. When it
// returns nil the record is on the disk: only then may the step it announces begin.
func (d *DB) SaveOperation(ctx context.Context, o Operation) error {
	data, err := json.Marshal(o)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot journal operation %s: %w", o.ID, err)
	}
	var finished any
	if o.FinishedAt != nil {
		finished = stamp(*o.FinishedAt)
	}
	err = d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO operations (id,kind,target,status,created_at,finished_at,record) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET kind=excluded.kind, target=excluded.target, status=excluded.status,
			finished_at=excluded.finished_at, record=excluded.record`,
			o.ID, o.Kind, o.Target, string(o.Status), stamp(o.CreatedAt), finished, string(data))
		return err
	})
	if err != nil {
		return d.fail(err, "journal operation %s", o.ID)
	}
	return nil
}

// Operation reads one operation.
func (d *DB) Operation(ctx context.Context, id string) (Operation, error) {
	return operations.by(ctx, d, "id", id)
}

// Operations lists all operations, oldest first. One whose record cannot be
// read is listed as failed, with the error and what its columns say.
func (d *DB) Operations(ctx context.Context) ([]Operation, error) {
	var broken []string
	list, err := operations.all(ctx, d, func(id, _ string, err *api.Error) (Operation, bool) {
		broken = append(broken, id)
		return Operation{ID: id, Status: api.OperationFailed, Error: err}, true
	})
	if err != nil || len(broken) == 0 {
		return list, err
	}
	for i := range list {
		for _, id := range broken {
			if list[i].ID == id {
				d.fillOperation(ctx, &list[i])
			}
		}
	}
	return list, nil
}

// fillOperation completes the stand-in of an unreadable operation.
func (d *DB) fillOperation(ctx context.Context, o *Operation) {
	var created int64
	var finished sql.NullInt64
	err := d.read.QueryRowContext(ctx, "SELECT kind, target, created_at, finished_at FROM operations WHERE id=?", o.ID).
		Scan(&o.Kind, &o.Target, &created, &finished)
	if err != nil {
		return // gone meanwhile
	}
	o.CreatedAt = unstamp(created)
	at := o.CreatedAt
	if finished.Valid {
		at = unstamp(finished.Int64)
	}
	o.FinishedAt = &at
}

// DeleteOperations forgets the operations with these ids; unknown ones are no error.
func (d *DB) DeleteOperations(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	err := d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, "DELETE FROM operations WHERE id=?", id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return d.fail(err, "delete %d operations", len(ids))
	}
	return nil
}

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
)

// table is how records of one type are kept: JSON, beside the columns that are
// looked up or must be unique.
type table[T any] struct {
	name string // in the schema
	noun string // for people
	show string // command that shows one, for hints
	// requests says that the table has the column request_id.
	requests bool
	// nameless says that it lacks the column name.
	nameless bool
	keys     func(*T) keys
	// more are columns beyond those of keys, more values of a record; both may be
	// nil.
	more   []string
	values func(*T) []any
	// check, if any, refuses a record that is about to be written; before is nil
	// for a new one.
	check func(ctx context.Context, tx *sql.Tx, rec, before *T) error
}

// keys are the columns of a record; an empty name or request id is stored as
// null, and so is never taken.
type keys struct {
	id, name, requestID string
	created             time.Time
}

func (t table[T]) nameColumn() string {
	if t.nameless {
		return "''"
	}
	return "coalesce(name,'')"
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// columns are a record's columns and what goes into them.
func (t table[T]) columns(rec *T, data []byte) (names []string, values []any) {
	k := t.keys(rec)
	names, values = []string{"id", "created_at", "record"}, []any{k.id, stamp(k.created), data2text(data)}
	if !t.nameless {
		names, values = append(names, "name"), append(values, null(k.name))
	}
	if t.requests {
		names, values = append(names, "request_id"), append(values, null(k.requestID))
	}
	if t.values != nil {
		names, values = append(names, t.more...), append(values, t.values(rec)...)
	}
	return names, values
}

func (t table[T]) insert(ctx context.Context, d *DB, rec T) error {
	k := t.keys(&rec)
	if k.id == "" {
		return api.Errorf(api.KindInternal, "cannot store %s %q: it has no id", t.noun, k.name)
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot store %s %q: %w", t.noun, k.name, err)
	}
	err = d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		if err := t.free(ctx, tx, k, ""); err != nil {
			return err
		}
		if t.check != nil {
			if err := t.check(ctx, tx, &rec, nil); err != nil {
				return err
			}
		}
		return t.write(ctx, tx, &rec, data)
	})
	if err != nil {
		return d.fail(err, "store %s %q", t.noun, k.name)
	}
	return nil
}

// write inserts a record, or replaces the one with its id.
func (t table[T]) write(ctx context.Context, tx *sql.Tx, rec *T, data []byte) error {
	names, values := t.columns(rec, data)
	set := make([]string, len(names))
	for i, n := range names {
		set[i] = n + "=excluded." + n
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO "+t.name+" ("+strings.Join(names, ",")+") VALUES (?"+strings.Repeat(",?", len(names)-1)+")"+
		" ON CONFLICT (id) DO UPDATE SET "+strings.Join(set, ","), values...)
	return err
}

// publish inserts the record, or replaces the one with its id, and gives it its
// name, in one transaction. When the name is another's, take decides with its
// error whether it passes to this one; unname then takes it from the record.
func (t table[T]) publish(ctx context.Context, d *DB, rec T, unname func(*T), take func(holder T) error) error {
	k := t.keys(&rec)
	if k.id == "" {
		return api.Errorf(api.KindInternal, "cannot store %s %q: it has no id", t.noun, k.name)
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot store %s %q: %w", t.noun, k.name, err)
	}
	err = d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		var other, held string
		err := tx.QueryRowContext(ctx, "SELECT id, record FROM "+t.name+" WHERE name=? AND id<>?", k.name, k.id).Scan(&other, &held)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err == nil && take != nil {
			var holder T
			if err := t.decode(other, held, &holder); err != nil {
				return err
			}
			if err := take(holder); err != nil {
				return refusal{err}
			}
			unname(&holder)
			without, err := json.Marshal(holder)
			if err != nil {
				return err
			}
			if err := t.write(ctx, tx, &holder, without); err != nil {
				return err
			}
		}
		if err := t.free(ctx, tx, k, k.id); err != nil {
			return err
		}
		return t.write(ctx, tx, &rec, data)
	})
	return d.failOwn(err, "store %s %q", t.noun, k.name)
}

// free checks that no other record than self has the name or the id, and that
// no name is another's id: a reference must never mean two things.
func (t table[T]) free(ctx context.Context, tx *sql.Tx, k keys, self string) error {
	rows, err := tx.QueryContext(ctx,
		"SELECT id, coalesce(name,'') FROM "+t.name+" WHERE id<>?3 AND (id IN (?1,?2) OR name IN (?1,?2))", k.id, k.name, self)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, name string
		if err := rows.Scan(&id, &name); err != nil {
			return err
		}
		switch {
		case k.name != "" && name == k.name:
			return api.Errorf(api.KindExists, "cannot name %s %q: the name is taken by %s", t.noun, k.name, id).WithHint("%s %s", t.show, id)
		case id == k.id:
			return api.Errorf(api.KindExists, "cannot store %s %q: the id %s is taken", t.noun, k.name, k.id).WithHint("%s %s", t.show, id)
		case id == k.name:
			return api.Errorf(api.KindExists, "cannot name %s %q: that is the id of another", t.noun, k.name).WithHint("%s %s", t.show, id)
		default:
			return api.Errorf(api.KindExists, "cannot store %s %q: its id %s is the name of another", t.noun, k.name, k.id).WithHint("%s %s", t.show, id)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if !t.requests || k.requestID == "" {
		return nil
	}
	var other string
	err = tx.QueryRowContext(ctx, "SELECT id FROM "+t.name+" WHERE request_id=? AND id<>?", k.requestID, self).Scan(&other)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return api.Errorf(api.KindExists, "cannot store %s %q: request id %q made %s already", t.noun, k.name, k.requestID, other).WithHint("%s %s", t.show, other)
}

// change reads the record, lets f change it, and writes it back, as one. When f
// fails, or changes nothing, nothing is written.
func (t table[T]) change(ctx context.Context, d *DB, id string, f func(*T) error) (T, error) {
	var rec, none T
	err := d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		var before string
		err := tx.QueryRowContext(ctx, "SELECT record FROM "+t.name+" WHERE id=?", id).Scan(&before)
		if errors.Is(err, sql.ErrNoRows) {
			return t.notFound("id", id)
		}
		if err != nil {
			return err
		}
		if err := t.decode(id, before, &rec); err != nil {
			return err
		}
		if err := f(&rec); err != nil {
			return refusal{err}
		}
		k := t.keys(&rec)
		if k.id != id {
			return fmt.Errorf("its id became %q", k.id)
		}
		after, err := json.Marshal(rec)
		if err != nil {
			return err
		}
		if string(after) == before {
			return nil
		}
		if !t.nameless {
			if err := t.free(ctx, tx, k, id); err != nil {
				return err
			}
		}
		if t.check != nil {
			var old T
			if err := t.decode(id, before, &old); err != nil {
				return err
			}
			if err := t.check(ctx, tx, &rec, &old); err != nil {
				return err
			}
		}
		return t.write(ctx, tx, &rec, after)
	})
	if err != nil {
		return none, d.failOwn(err, "change %s %s", t.noun, id)
	}
	return rec, nil
}

// refusal carries the error of a caller's function out of a transaction as it is.
type refusal struct{ error }

// failOwn is fail, but the error of a caller's function comes back as it is.
func (d *DB) failOwn(err error, what string, args ...any) error {
	var own refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own.error
	}
	return d.fail(err, what, args...)
}

// by looks one record up; column is id, name or request_id.
func (t table[T]) by(ctx context.Context, d *DB, column, value string) (T, error) {
	var rec, none T
	var id, data string
	err := d.read.QueryRowContext(ctx, "SELECT id, record FROM "+t.name+" WHERE "+column+"=?", value).Scan(&id, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return none, t.notFound(column, value)
	}
	if err == nil {
		err = t.decode(id, data, &rec)
	}
	if err != nil {
		return none, d.fail(err, "read %s %s", t.noun, value)
	}
	return rec, nil
}

// all lists the records in the order they were made. One that cannot be read
// is handed to broken, which may give a record to stand in for it.
func (t table[T]) all(ctx context.Context, d *DB, broken func(id, name string, err *api.Error) (T, bool)) ([]T, error) {
	rows, err := d.read.QueryContext(ctx, "SELECT id, "+t.nameColumn()+", record FROM "+t.name+" ORDER BY created_at, id")
	if err != nil {
		return nil, d.fail(err, "list the %ss", t.noun)
	}
	defer func() { _ = rows.Close() }()
	list := []T{}
	for rows.Next() {
		var id, name, data string
		if err := rows.Scan(&id, &name, &data); err != nil {
			return nil, d.fail(err, "list the %ss", t.noun)
		}
		var rec T
		if err := t.decode(id, data, &rec); err != nil {
			stand, ok := broken(id, name, api.AsError(err))
			if !ok {
				continue
			}
			rec = stand
		}
		list = append(list, rec)
	}
	if err := rows.Err(); err != nil {
		return nil, d.fail(err, "list the %ss", t.noun)
	}
	return list, nil
}

// remove deletes a record; one that is not there is of kind not-found, one that
// VMs use, as their column used says, bad-state. Of checks, which may refuse it,
// there may be none.
func (t table[T]) remove(ctx context.Context, d *DB, id, used string, checks ...func(ctx context.Context, tx *sql.Tx, id string) error) error {
	err := d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		if used != "" {
			users, err := vmsWith(ctx, tx, used, id)
			if err != nil {
				return err
			}
			if len(users) > 0 {
				return inUse(t.noun, t.called(ctx, tx, id), users)
			}
		}
		for _, check := range checks {
			if err := check(ctx, tx, id); err != nil {
				return err
			}
		}
		res, err := tx.ExecContext(ctx, "DELETE FROM "+t.name+" WHERE id=?", id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return t.notFound("id", id)
		}
		return nil
	})
	if err != nil {
		return d.fail(err, "delete %s %s", t.noun, id)
	}
	return nil
}

// called is what people call a record: its name, or its id where it has none.
func (t table[T]) called(ctx context.Context, tx *sql.Tx, id string) string {
	var name string
	if err := tx.QueryRowContext(ctx, "SELECT "+t.nameColumn()+" FROM "+t.name+" WHERE id=?", id).Scan(&name); err != nil || name == "" {
		return id
	}
	return name
}

func (t table[T]) decode(id, data string, rec *T) error {
	err := json.Unmarshal([]byte(data), rec)
	if err == nil && t.keys(rec).id != id {
		err = fmt.Errorf("it says its id is %q", t.keys(rec).id)
	}
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot read the record of %s %s: %w", t.noun, id, err).WithHint("banger doctor")
	}
	return nil
}

func (t table[T]) notFound(column, value string) *api.Error {
	what := map[string]string{"id": "id", "name": "name", "request_id": "request id"}[column]
	return api.Errorf(api.KindNotFound, "cannot find %s %q: no %s has this %s", t.noun, value, t.noun, what)
}

// data2text makes the driver store JSON as text, which STRICT tables insist on.
func data2text(b []byte) string { return string(b) }

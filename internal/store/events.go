package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/bangervm/banger/api"
)

// AppendEvent stores an event and gives it the next id; the id it came with is
// ignored. Events survive the daemon's death; a power cut may take the last few.
func (d *DB) AppendEvent(ctx context.Context, e api.Event) (int64, error) {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return 0, api.Errorf(api.KindInternal, "cannot store event %s: %w", e.Kind, err)
	}
	var id int64
	err = d.update(ctx, relaxed, func(ctx context.Context, tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "INSERT INTO events (time,kind,target,data) VALUES (?,?,?,?)",
			stamp(e.Time), e.Kind, e.Target, string(data))
		if err != nil {
			return err
		}
		id, err = res.LastInsertId()
		return err
	})
	if err != nil {
		return 0, d.fail(err, "store event %s", e.Kind)
	}
	return id, nil
}

// Events lists at most limit events with an id above since, in order. A limit
// of 0 or less means all.
func (d *DB) Events(ctx context.Context, since int64, limit int) ([]api.Event, error) {
	if limit <= 0 {
		limit = -1
	}
	rows, err := d.read.QueryContext(ctx, "SELECT id, time, kind, target, data FROM events WHERE id>? ORDER BY id LIMIT ?", since, limit)
	if err != nil {
		return nil, d.fail(err, "list the events")
	}
	defer func() { _ = rows.Close() }()
	list := []api.Event{}
	for rows.Next() {
		var e api.Event
		var at int64
		var data string
		if err := rows.Scan(&e.ID, &at, &e.Kind, &e.Target, &data); err != nil {
			return nil, d.fail(err, "list the events")
		}
		e.Time = unstamp(at)
		if err := json.Unmarshal([]byte(data), &e.Data); err != nil || e.Data == nil {
			e.Data = map[string]string{} // an event is told, not relied on
		}
		list = append(list, e)
	}
	if err := rows.Err(); err != nil {
		return nil, d.fail(err, "list the events")
	}
	return list, nil
}

// LastEvent is the id of the newest event, 0 when there never was one.
func (d *DB) LastEvent(ctx context.Context) (int64, error) {
	var id int64
	err := d.read.QueryRowContext(ctx, "SELECT seq FROM sqlite_sequence WHERE name='events'").Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, d.fail(err, "read the last event")
	}
	return id, nil
}

// TrimEvents forgets all events but the newest keep.
func (d *DB) TrimEvents(ctx context.Context, keep int) error {
	err := d.update(ctx, relaxed, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?)", max(keep, 0))
		return err
	})
	if err != nil {
		return d.fail(err, "trim the events")
	}
	return nil
}

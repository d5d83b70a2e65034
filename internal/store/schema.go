package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/bangervm/banger/api"
)

// applicationID marks the database as banger's ("bngr"), in its header.
const applicationID = 0x626e6772

// migrations bring the schema from version i to i+1. They are only ever
// appended; one that was released is never edited.
var migrations = []string{
	`CREATE TABLE vms (
		id         TEXT PRIMARY KEY,
		name       TEXT NOT NULL UNIQUE,
		request_id TEXT UNIQUE,
		created_at INTEGER NOT NULL, -- microseconds since 1970
		record     TEXT NOT NULL     -- JSON, see VM
	) STRICT, WITHOUT ROWID;
	CREATE TABLE images (
		id         TEXT PRIMARY KEY,
		name       TEXT UNIQUE,      -- null: no longer named
		created_at INTEGER NOT NULL,
		record     TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE kernels (
		id         TEXT PRIMARY KEY,
		name       TEXT UNIQUE,
		created_at INTEGER NOT NULL,
		record     TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE operations (
		id          TEXT PRIMARY KEY,
		kind        TEXT NOT NULL,
		target      TEXT NOT NULL,
		status      TEXT NOT NULL,
		created_at  INTEGER NOT NULL,
		finished_at INTEGER,
		record      TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE events (
		id     INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice
		time   INTEGER NOT NULL,
		kind   TEXT NOT NULL,
		target TEXT NOT NULL,
		data   TEXT NOT NULL
	) STRICT;`,
}

// quickCheckBelow is the size up to which Open reads the whole database to see
// whether it is sound; beyond it that would take too long.
const quickCheckBelow = 2 << 20

// prepare checks the database and applies the migrations it lacks.
func (d *DB) prepare(ctx context.Context) error {
	var version, app, tables, pages int
	if err := d.write.QueryRowContext(ctx,
		`SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema), page_count*page_size
		 FROM pragma_user_version, pragma_application_id, pragma_page_count, pragma_page_size`).
		Scan(&version, &app, &tables, &pages); err != nil {
		return d.fail(err, "open the store %s", d.path)
	}
	switch {
	case tables > 0 && app != applicationID:
		return damaged(d.path, fmt.Errorf("it is another program's database"))
	case version > len(migrations):
		return api.Errorf(api.KindUnsupported, "cannot open the store %s: it was written by a newer banger (schema %d, this one knows %d)",
			d.path, version, len(migrations)).WithHint("run the newer banger: type -a banger")
	case version == 0 && tables > 0:
		return damaged(d.path, fmt.Errorf("it has tables but no schema version"))
	}
	if tables > 0 && pages <= quickCheckBelow {
		if err := d.quickCheck(ctx, d.write); err != nil {
			return err
		}
	}
	if version == len(migrations) {
		return nil
	}
	err := d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		for _, m := range migrations[version:] {
			if _, err := tx.ExecContext(ctx, m); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version=%d; PRAGMA application_id=%d", len(migrations), applicationID))
		return err
	})
	if err != nil {
		return d.fail(err, "bring the store %s from schema %d to %d", d.path, version, len(migrations))
	}
	return nil
}

// Check reads the whole database and says what is wrong with it: damaged pages,
// and records that cannot be read.
func (d *DB) Check(ctx context.Context) error {
	if err := d.quickCheck(ctx, d.read); err != nil {
		return err
	}
	return d.checkRecords(ctx)
}

func (d *DB) quickCheck(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return d.fail(err, "check the store %s", d.path)
	}
	if verdict != "ok" {
		return damaged(d.path, fmt.Errorf("%s", verdict))
	}
	return nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
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
	// An image has any number of names, and VMs say in columns what they are made
	// from. What a damaged record holds is not known; its columns stay null.
	`ALTER TABLE vms ADD COLUMN image_id TEXT;
	ALTER TABLE vms ADD COLUMN kernel_id TEXT;
	UPDATE vms SET image_id=nullif(record->>'$.image_id',''), kernel_id=nullif(record->>'$.kernel_id','') WHERE json_valid(record);
	CREATE INDEX vms_image ON vms (image_id);
	CREATE INDEX vms_kernel ON vms (kernel_id);
	ALTER TABLE images RENAME TO images_1;
	CREATE TABLE images (
		id         TEXT PRIMARY KEY,
		created_at INTEGER NOT NULL,
		record     TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	INSERT INTO images SELECT id, created_at, CASE WHEN json_valid(record) THEN json_set(record,'$.name','') ELSE record END FROM images_1;
	CREATE TABLE image_names (
		name       TEXT PRIMARY KEY,
		image      TEXT NOT NULL REFERENCES images (id),
		created_at INTEGER NOT NULL, -- when the image got the name
		record     TEXT NOT NULL     -- JSON, see imageName
	) STRICT, WITHOUT ROWID;
	CREATE INDEX image_names_image ON image_names (image);
	INSERT INTO image_names SELECT name, id, created_at, CASE WHEN json_valid(record)
		THEN json_object('reference', record->>'$.reference', 'kernel', record->>'$.kernel') ELSE '{}' END FROM images_1 WHERE name IS NOT NULL;
	DROP TABLE images_1;`,
}

// quickCheckBelow is the size up to which Open reads the whole database to see
// whether it is sound; beyond it that would take too long.
const quickCheckBelow = 2 << 20

// inspect reads the schema's version and checks that the database is ours and
// sound. It reads only: not even the log of a damaged store is folded in.
func (d *DB) inspect(ctx context.Context) (version int, err error) {
	db, err := sql.Open("sqlite", dsn(d.path, "deferred", "busy_timeout(5000)", "query_only(ON)", "cache_size(-512)")+"&mode=ro")
	if err != nil {
		return 0, d.fail(err, "open the store %s", d.path)
	}
	db.SetMaxOpenConns(1)
	defer func() { _ = db.Close() }()
	var app, tables int
	var bytes int64
	if err := db.QueryRowContext(ctx,
		`SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema), page_count*page_size
		 FROM pragma_user_version, pragma_application_id, pragma_page_count, pragma_page_size`).
		Scan(&version, &app, &tables, &bytes); err != nil {
		return 0, d.fail(err, "open the store %s", d.path)
	}
	switch {
	case tables == 0 && app == 0 && version == 0:
		return 0, nil // made, but never filled
	case app != applicationID:
		return 0, damaged(d.path, errors.New("it is another program's database"))
	case version > len(migrations):
		return 0, api.Errorf(api.KindUnsupported, "cannot open the store %s: it was written by a newer banger (schema %d, this one knows %d)",
			d.path, version, len(migrations)).WithHint("type -a banger")
	case version < 1 || tables == 0:
		return 0, damaged(d.path, fmt.Errorf("it has %d tables of schema %d", tables, version))
	}
	if bytes > quickCheckBelow {
		return version, nil
	}
	return version, d.quickCheck(ctx, db)
}

// migrate brings the schema from version to the newest, in one transaction.
func (d *DB) migrate(ctx context.Context, version int) error {
	if version == len(migrations) {
		return nil
	}
	err := d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		for _, m := range migrations[version:] {
			if _, err := tx.ExecContext(ctx, m); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id=%d", applicationID)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version=%d", len(migrations)))
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
		return damaged(d.path, errors.New(verdict))
	}
	return nil
}

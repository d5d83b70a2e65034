package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/bangervm/banger/api"
	_ "modernc.org/sqlite" // the driver named sqlite
)

// durability says what a commit waits for.
type durability bool

const (
	// durable commits are on the disk when they return (synchronous=FULL).
	durable durability = true
	// relaxed commits survive the death of the process, not of the machine
	// (synchronous=NORMAL). Events are written so.
	relaxed durability = false
)

// DB is an open store. Its methods may be used from several goroutines. Every
// error is an *api.Error.
type DB struct {
	path string
	log  *slog.Logger

	// One connection writes; turn holds the right to use it, so that waiting
	// follows the caller's context and no writer ever meets another's lock.
	write  *sql.DB
	turn   chan struct{}
	full   bool // the writer's synchronous setting; guarded by turn
	closed bool // guarded by turn

	reserved     bool // space is held for the journal; guarded by turn, like the next
	reserveTried time.Time

	read *sql.DB
}

// pragmas are set on every connection. The cache is small because the records
// are: the whole database is a few hundred KiB.
var pragmas = []string{
	"busy_timeout(5000)",
	"journal_mode(WAL)",
	"synchronous(FULL)",
	"foreign_keys(ON)",
	"cache_size(-512)",
	"temp_store(MEMORY)",
	"journal_size_limit(1048576)",
	"trusted_schema(OFF)",
}

func dsn(path, txlock string, pragmas ...string) string {
	q := url.Values{"_txlock": {txlock}, "_pragma": pragmas}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return u.String()
}

// Open opens the store at path, makes it when there is none, and brings its
// schema up to date. A store written by a newer banger is refused with kind
// unsupported, a damaged one with kind internal; neither is changed. The caller
// closes the DB, and sees to it that one process at a time has it open.
func Open(ctx context.Context, path string, log *slog.Logger) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "cannot open the store %s: %w", path, err)
	}
	d := &DB{path: path, log: log, turn: make(chan struct{}, 1), full: true}
	fresh, err := checkFile(path)
	if err != nil {
		return nil, err
	}
	version := 0
	if !fresh {
		if version, err = d.inspect(ctx); err != nil {
			return nil, err
		}
	}
	if d.write, err = sql.Open("sqlite", dsn(path, "immediate", pragmas...)); err != nil {
		return nil, d.fail(err, "open the store %s", path)
	}
	d.write.SetMaxOpenConns(1)
	if err := d.migrate(ctx, version); err != nil {
		_ = d.write.Close()
		return nil, err
	}
	if d.read, err = sql.Open("sqlite", dsn(path, "deferred", append([]string{"query_only(ON)"}, pragmas...)...)); err != nil {
		_ = d.write.Close()
		return nil, d.fail(err, "open the store %s", path)
	}
	d.takeReserve()
	if err := d.makeRoom(ctx); diskFull(err) {
		d.giveReserve(ctx)
	}
	d.read.SetMaxOpenConns(2)
	d.read.SetMaxIdleConns(1)
	return d, nil
}

// Close writes everything into the one file and closes it. Closing again does
// nothing; any other call then fails with kind unavailable.
func (d *DB) Close() error {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	if d.closed {
		return nil
	}
	d.closed = true
	if err := errors.Join(d.read.Close(), d.write.Close()); err != nil {
		return d.fail(err, "close the store %s", d.path)
	}
	return nil
}

// Path of the database file.
func (d *DB) Path() string { return d.path }

// update runs f in one transaction of the writer. Once begun it is not
// interrupted by ctx: what it does takes milliseconds, and a caller must know
// whether it happened. f must not call methods of d that write.
func (d *DB) update(ctx context.Context, how durability, f func(context.Context, *sql.Tx) error) error {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.turn }()
	if d.closed {
		return sql.ErrConnDone
	}
	ctx = context.WithoutCancel(ctx)
	err := d.commit(ctx, how, f)
	if how == durable {
		if diskFull(err) {
			d.giveReserve(ctx)
			// What is in the log goes where it belongs, and the log's own space is
			// free to be written again.
			_, _ = d.write.ExecContext(ctx, "PRAGMA wal_checkpoint(RESTART)")
			err = d.commit(ctx, how, f)
		} else if err == nil {
			d.takeReserve()
		}
	}
	return err
}

// commit runs f in one transaction. turn is held.
func (d *DB) commit(ctx context.Context, how durability, f func(context.Context, *sql.Tx) error) error {
	if err := d.setSync(ctx, how); err != nil {
		return err
	}
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := f(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// setSync makes the writer's commits durable or relaxed. turn is held.
func (d *DB) setSync(ctx context.Context, how durability) error {
	if d.full == bool(how) {
		return nil
	}
	level := "NORMAL"
	if how == durable {
		level = "FULL"
	}
	if _, err := d.write.ExecContext(ctx, "PRAGMA synchronous="+level); err != nil {
		return err
	}
	d.full = bool(how)
	return nil
}

// checkFile refuses what SQLite would silently start over: a file that is not a
// database, or an emptied or missing one beside a log that still holds data. It
// makes a missing file, closed to others, and reports a store that is yet to fill.
func checkFile(path string) (fresh bool, err error) {
	log, logErr := os.Stat(path + "-wal")
	hasLog := logErr == nil && log.Size() > 0
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && hasLog:
		return false, damaged(path, fmt.Errorf("the file is missing, but its log %s-wal is there", path))
	case err == nil && !fi.Mode().IsRegular():
		return false, damaged(path, errors.New("it is not a regular file"))
	case err == nil && fi.Size() == 0 && hasLog:
		return false, damaged(path, fmt.Errorf("the file is empty, but its log %s-wal is not", path))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, api.Errorf(fileKind(err), "cannot open the store: %w", err).WithHint("ls -ld %s %s", filepath.Dir(path), path)
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, len(magic))
	n, err := f.ReadAt(head, 0)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return true, nil
	case err != nil && !errors.Is(err, io.EOF):
		return false, api.Errorf(api.KindInternal, "cannot read the store: %w", err)
	case string(head) != magic:
		return false, damaged(path, errors.New("it does not begin as a SQLite database does"))
	}
	return false, nil
}

// magic is how every SQLite database begins (sqlite.org/fileformat.html, 1.3).
const magic = "SQLite format 3\x00"

// stamp and unstamp are how times lie in columns: microseconds since 1970.
func stamp(t time.Time) int64    { return t.UnixMicro() }
func unstamp(us int64) time.Time { return time.UnixMicro(us).UTC() }

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// The reserve is disk space for the journal, held by a file beside the store: on
// a full disk somebody still wants to stop and delete what fills it, and no step
// is taken that is not written down first.
const (
	reserveBytes = 2 << 20
	roomBytes    = 256 << 10        // in the database and in its log
	reserveEvery = 10 * time.Second // how often it is taken anew, once given
)

func (d *DB) reserve() string { return d.path + "-reserve" }

// takeReserve takes the space where it is not held; without room there is none.
// turn is held, or nobody else knows d.
func (d *DB) takeReserve() {
	if d.reserved || time.Since(d.reserveTried) < reserveEvery {
		return
	}
	d.reserveTried = time.Now()
	f, err := os.OpenFile(d.reserve(), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	if unix.Fallocate(int(f.Fd()), 0, 0, reserveBytes) != nil { // also where the file system cannot
		_ = os.Remove(d.reserve())
		return
	}
	d.reserved = true
}

// makeRoom makes database and log that much longer than they need be: what is
// written and dropped leaves free pages, which the next records fill, and a log
// that is written again from its beginning. Without room it does nothing. turn is
// held, or nobody else knows d.
func (d *DB) makeRoom(ctx context.Context) error {
	if err := d.setSync(ctx, relaxed); err != nil {
		return err
	}
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	for _, sql := range []string{"CREATE TABLE room (x BLOB)", fmt.Sprintf("INSERT INTO room VALUES (zeroblob(%d))", roomBytes), "DROP TABLE room"} {
		if _, err := tx.ExecContext(ctx, sql); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// giveReserve gives the space back to the disk, and takes of it what the store
// needs before somebody else does. turn is held.
func (d *DB) giveReserve(ctx context.Context) {
	if !d.reserved {
		return
	}
	d.reserved, d.reserveTried = false, time.Now()
	if err := os.Remove(d.reserve()); err != nil {
		d.log.Warn("cannot give the reserve of the store", "error", err)
		return
	}
	if err := d.makeRoom(ctx); err != nil {
		d.log.Warn("cannot make use of the reserve of the store", "error", err)
	}
	d.log.Warn("the disk is full: the store lives on its reserve", "store", d.path)
}

// diskFull says whether a write failed for want of space.
func diskFull(err error) bool {
	var s *sqlite.Error
	return errors.As(err, &s) && s.Code()&0xff == lib.SQLITE_FULL || errors.Is(err, syscall.ENOSPC)
}

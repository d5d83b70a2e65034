package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/bangervm/banger/api"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// damaged says that the database cannot be trusted and what a person can do;
// nothing was changed, nothing is deleted.
func damaged(path string, cause error) *api.Error {
	dir := filepath.Dir(path)
	return api.Errorf(api.KindInternal,
		"cannot use the store %s: it is damaged, or not ours: %w; nothing was changed: put a backup in its place, or set it aside to begin with an empty store (disks and images stay where they are)",
		path, cause).
		WithHint("mkdir %s/damaged && mv %s* %s/damaged/", dir, path, dir)
}

// fail gives err the kind and hint it deserves. The message is
// "cannot <what>: <err>".
func (d *DB) fail(err error, what string, args ...any) error {
	var known *api.Error
	if errors.As(err, &known) {
		return api.AsError(err)
	}
	doing := fmt.Sprintf(what, args...)
	switch {
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.KindCancelled, "cannot %s: %w", doing, err)
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot %s: %w", doing, err)
	case errors.Is(err, sql.ErrConnDone), err.Error() == "sql: database is closed":
		return api.Errorf(api.KindUnavailable, "cannot %s: the store is closed", doing)
	}
	var s *sqlite.Error
	if !errors.As(err, &s) {
		return api.Errorf(fileKind(err), "cannot %s: %w", doing, err)
	}
	switch s.Code() & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return damaged(d.path, err)
	case lib.SQLITE_FULL:
		return api.Errorf(api.KindNoSpace, "cannot %s: %w", doing, err).WithHint("df -h %s", filepath.Dir(d.path))
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return api.Errorf(api.KindBusy, "cannot %s: another process holds it: %w", doing, err).WithHint("banger daemon status")
	case lib.SQLITE_PERM, lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_AUTH:
		return api.Errorf(api.KindDenied, "cannot %s: %w", doing, err).WithHint("ls -ld %s %s", filepath.Dir(d.path), d.path)
	}
	return api.Errorf(api.KindInternal, "cannot %s: %w", doing, err)
}

func fileKind(err error) api.Kind {
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return api.KindDenied
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.KindNoSpace
	}
	return api.KindInternal
}

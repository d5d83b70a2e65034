package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"

	"github.com/bangervm/banger/api"
)

// What VMs are made from must stay while they are there. The columns image_id and
// kernel_id of the table vms say what that is; they are written with the record,
// and checked in the transaction that writes it.

// user is a VM that uses something.
type user struct {
	name string
	as   string // the name of what it uses, as it was when the VM was made
}

// vmsWith lists the VMs that use what has the id; column is image_id or kernel_id.
func vmsWith(ctx context.Context, tx *sql.Tx, column, id string) ([]user, error) {
	rows, err := tx.QueryContext(ctx, "SELECT name, record FROM vms WHERE "+column+"=? ORDER BY created_at, id", id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var users []user
	for rows.Next() {
		var u user
		var data string
		if err := rows.Scan(&u.name, &data); err != nil {
			return nil, err
		}
		var v VM
		if json.Unmarshal([]byte(data), &v) == nil { // a broken VM uses it too
			u.as = v.ImageName
			if column == "kernel_id" {
				u.as = v.KernelName
			}
		}
		users = append(users, u)
	}
	return users, rows.Err()
}

// inUse is why something cannot go.
func inUse(noun, ref string, users []user) *api.Error {
	names := make([]string, 0, len(users))
	for _, u := range users {
		names = append(names, u.name)
	}
	shown := names
	more := ""
	if len(shown) > 10 {
		shown, more = shown[:10], ", …"
	}
	e := api.Errorf(api.KindBadState, "cannot delete %s %q: VMs use it: %s%s", noun, ref, strings.Join(shown, ", "), more).
		WithHint("banger vm list")
	e.Candidates = names
	return e
}

// madeFrom checks that what a VM is made from is here, where that is new: it may
// have been deleted since it was looked up. before is nil for a new VM.
func madeFrom(ctx context.Context, tx *sql.Tx, v, before *VM) error {
	var old VM
	if before != nil {
		old = *before
	}
	for _, c := range []struct{ noun, table, id, was, name string }{
		{"image", "images", v.ImageID, old.ImageID, v.ImageName}, {"kernel", "kernels", v.KernelID, old.KernelID, v.KernelName},
	} {
		if c.id == "" || c.id == c.was {
			continue
		}
		var id string
		err := tx.QueryRowContext(ctx, "SELECT id FROM "+c.table+" WHERE id=?", c.id).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return api.Errorf(api.KindNotFound, "cannot make vm %q: its %s %q was deleted meanwhile", v.Name, c.noun, first(c.name, c.id)).
				WithHint("banger %s list", c.noun)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/bangervm/banger/api"
)

// images holds the contents; how they are called is in the table image_names.
var images = table[Image]{name: "images", noun: "image", show: "banger image show", nameless: true, keys: func(i *Image) keys {
	return keys{id: i.ID, created: i.CreatedAt}
}}

// imageName is what belongs to one name of an image, beside the name itself.
type imageName struct {
	Reference       string `json:"reference"`
	ReferenceDigest string `json:"reference_digest,omitempty"`
	Kernel          string `json:"kernel"`
}

// PublishImage stores an image and gives it its name, if it has one, in one
// transaction. A record with its id is replaced and keeps its other names. When
// the name is another image's, take decides with its error whether it passes to
// this one, which leaves the other nameless where it has no more; a nil take
// refuses with kind exists.
func (d *DB) PublishImage(ctx context.Context, i Image, take func(holder Image) error) error {
	if i.ID == "" {
		return api.Errorf(api.KindInternal, "cannot store image %q: it has no id", i.Name)
	}
	name, err := json.Marshal(imageName{i.Reference, i.ReferenceDigest, i.Kernel})
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot store image %q: %w", i.Name, err)
	}
	called := i.Name
	i.Name = ""
	data, err := json.Marshal(i)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot store image %q: %w", called, err)
	}
	err = d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		if err := freeImageName(ctx, tx, i.ID, called, take); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO images (id,created_at,record) VALUES (?,?,?)
			ON CONFLICT (id) DO UPDATE SET record=excluded.record`, i.ID, stamp(i.CreatedAt), string(data)); err != nil {
			return err
		}
		if called == "" {
			return nil
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO image_names (name,image,created_at,record) VALUES (?,?,?,?)
			ON CONFLICT (name) DO UPDATE SET image=excluded.image, created_at=excluded.created_at, record=excluded.record`,
			called, i.ID, stamp(time.Now()), string(name))
		return err
	})
	return d.failOwn(err, "store image %q", called)
}

// freeImageName checks that a name is no other image's, unless take lets it go,
// and that it is no id, nor the id a name: a reference must never mean two things.
func freeImageName(ctx context.Context, tx *sql.Tx, id, name string, take func(Image) error) error {
	var other string
	err := tx.QueryRowContext(ctx, "SELECT id FROM images WHERE id=? AND id<>?", name, id).Scan(&other)
	if err == nil {
		return api.Errorf(api.KindExists, "cannot name image %q: that is the id of another", name).WithHint("banger image show %s", other)
	} else if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	err = tx.QueryRowContext(ctx, "SELECT image FROM image_names WHERE name=? AND image<>?", id, id).Scan(&other)
	if err == nil {
		return api.Errorf(api.KindExists, "cannot store image %q: its id %s is the name of another", name, id).WithHint("banger image show %s", other)
	} else if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var data, called string
	err = tx.QueryRowContext(ctx, "SELECT i.id, i.record, n.record FROM image_names n JOIN images i ON i.id=n.image WHERE n.name=? AND i.id<>?", name, id).
		Scan(&other, &data, &called)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case take == nil:
		return api.Errorf(api.KindExists, "cannot name image %q: the name is taken by %s", name, other).WithHint("banger image show %s", name)
	}
	var holder Image
	if err := images.decode(other, data, &holder); err != nil {
		return err
	}
	if err := holder.call(name, called); err != nil {
		return err
	}
	if err := take(holder); err != nil {
		return refusal{err}
	}
	return nil
}

// call gives a record the name and what belongs to it.
func (i *Image) call(name, record string) error {
	var n imageName
	if err := json.Unmarshal([]byte(record), &n); err != nil {
		return api.Errorf(api.KindInternal, "cannot read the record of the image name %q: %w", name, err).WithHint("banger doctor")
	}
	i.Name, i.Reference, i.ReferenceDigest, i.Kernel = name, n.Reference, n.ReferenceDigest, n.Kernel
	return nil
}

// UpdateImage lets f change what is stored of an image's content, with nothing in
// between. f must not change id, name, or what belongs to the name.
func (d *DB) UpdateImage(ctx context.Context, id string, f func(*Image) error) (Image, error) {
	return images.change(ctx, d, id, f)
}

// Image reads the image with the exact id, under its oldest name.
func (d *DB) Image(ctx context.Context, id string) (Image, error) {
	i, err := images.by(ctx, d, "id", id)
	if err != nil {
		return i, err
	}
	names, err := d.imageNames(ctx)
	if err != nil {
		return Image{}, err
	}
	return i.under("", names[id])
}

// ImageByName reads the image with the exact name. Only an error of kind
// not-found means that there is none.
func (d *DB) ImageByName(ctx context.Context, name string) (Image, error) {
	names, err := d.imageNames(ctx)
	if err != nil {
		return Image{}, err
	}
	for id, all := range names {
		if !slices.ContainsFunc(all, func(n named) bool { return n.name == name }) {
			continue
		}
		i, err := images.by(ctx, d, "id", id)
		if err != nil {
			return i, err
		}
		return i.under(name, all)
	}
	return Image{}, images.notFound("name", name)
}

// Images lists all images, oldest first: one that has several names once under
// each, one that lost its names without any. One whose record cannot be read is
// left out and logged; ImageByName and Check report it.
func (d *DB) Images(ctx context.Context) ([]Image, error) {
	contents, err := images.all(ctx, d, func(id, _ string, err *api.Error) (Image, bool) {
		d.log.WarnContext(ctx, "image left out of the list", "image", id, "error", err)
		return Image{}, false
	})
	if err != nil {
		return nil, err
	}
	names, err := d.imageNames(ctx)
	if err != nil {
		return nil, err
	}
	list := []Image{}
	for _, c := range contents {
		all := names[c.ID]
		for _, n := range all {
			i, err := c.under(n.name, all)
			if err != nil {
				d.log.WarnContext(ctx, "image name left out of the list", "image", c.ID, "name", n.name, "error", err)
				continue
			}
			list = append(list, i)
		}
		if len(all) == 0 {
			list = append(list, c)
		}
	}
	return list, nil
}

// named is one row of image_names.
type named struct{ name, record string }

// imageNames gives all names by the id of their image, oldest first.
func (d *DB) imageNames(ctx context.Context) (map[string][]named, error) {
	rows, err := d.read.QueryContext(ctx, "SELECT name, image, record FROM image_names ORDER BY created_at, name")
	if err != nil {
		return nil, d.fail(err, "list the names of images")
	}
	defer func() { _ = rows.Close() }()
	all := map[string][]named{}
	for rows.Next() {
		var n named
		var id string
		if err := rows.Scan(&n.name, &id, &n.record); err != nil {
			return nil, d.fail(err, "list the names of images")
		}
		all[id] = append(all[id], n)
	}
	if err := rows.Err(); err != nil {
		return nil, d.fail(err, "list the names of images")
	}
	return all, nil
}

// under gives the image under one of its names, or its oldest where name is empty.
func (i Image) under(name string, all []named) (Image, error) {
	i.Names = make([]string, len(all))
	for k, n := range all {
		i.Names[k] = n.name
		if n.name == name || name == "" && k == 0 {
			if err := i.call(n.name, n.record); err != nil {
				return Image{}, err
			}
		}
	}
	return i, nil
}

// DeleteImageName takes one name from an image, and forgets the image with its
// last: gone says so. It is of kind bad-state, and names the VMs, while one that
// was made from the image under this name is there, or any of the image whose
// last name it is. Look-up, check and removal are one transaction, as the
// insertion of a VM is: of a delete and a create, one wins.
func (d *DB) DeleteImageName(ctx context.Context, name string) (i Image, gone bool, err error) {
	err = d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		var id, called string
		var data sql.NullString
		var others int
		err := tx.QueryRowContext(ctx, `SELECT n.image, n.record, i.record, (SELECT count(*) FROM image_names o WHERE o.image=n.image AND o.name<>n.name)
			FROM image_names n LEFT JOIN images i ON i.id=n.image WHERE n.name=?`, name).Scan(&id, &called, &data, &others)
		if errors.Is(err, sql.ErrNoRows) {
			return images.notFound("name", name)
		}
		if err != nil {
			return err
		}
		// A record that cannot be read is as good as none: it goes too.
		if err := images.decode(id, data.String, &i); err != nil {
			i = Image{ID: id, Name: name}
		} else if err := i.call(name, called); err != nil {
			i.Name = name
		}
		gone = others == 0
		users, err := vmsWith(ctx, tx, "image_id", id)
		if err != nil {
			return err
		}
		if !gone {
			users = slices.DeleteFunc(users, func(u user) bool { return u.as != name })
		}
		if len(users) > 0 {
			return inUse("image", name, users)
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM image_names WHERE name=?", name); err != nil || !gone {
			return err
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM images WHERE id=?", id)
		return err
	})
	return i, gone, d.failOwn(err, "delete image %q", name)
}

// DeleteImage forgets an image and all its names, not its files, as
// DeleteImageName does.
func (d *DB) DeleteImage(ctx context.Context, id string) error {
	err := d.update(ctx, durable, func(ctx context.Context, tx *sql.Tx) error {
		users, err := vmsWith(ctx, tx, "image_id", id)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return inUse("image", id, users)
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM image_names WHERE image=?", id); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "DELETE FROM images WHERE id=?", id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return images.notFound("id", id)
		}
		return nil
	})
	return d.failOwn(err, "delete image %s", id)
}

package store

import (
	"context"

	"github.com/bangervm/banger/api"
)

var images = table[Image]{name: "images", noun: "image", show: "banger image show", keys: func(i *Image) keys {
	return keys{id: i.ID, name: i.Name, created: i.CreatedAt}
}}

// InsertImage stores a new image; see InsertVM for what exists means. An image
// may have no name: one whose name passed to a newer image, but which VMs use.
func (d *DB) InsertImage(ctx context.Context, i Image) error { return images.insert(ctx, d, i) }

// UpdateImage is to images what UpdateVM is to VMs.
func (d *DB) UpdateImage(ctx context.Context, id string, f func(*Image) error) (Image, error) {
	return images.change(ctx, d, id, f)
}

// Image reads the image with the exact id.
func (d *DB) Image(ctx context.Context, id string) (Image, error) { return images.by(ctx, d, "id", id) }

// ImageByName reads the image with the exact name. Only an error of kind
// not-found means that there is none.
func (d *DB) ImageByName(ctx context.Context, name string) (Image, error) {
	return images.by(ctx, d, "name", name)
}

// Images lists all images, oldest first. One whose record cannot be read is
// left out and logged; ImageByName and Check report it.
func (d *DB) Images(ctx context.Context) ([]Image, error) {
	return images.all(ctx, d, func(id, _ string, err *api.Error) (Image, bool) {
		d.log.WarnContext(ctx, "image left out of the list", "image", id, "error", err)
		return Image{}, false
	})
}

// DeleteImage forgets the image, not its files.
func (d *DB) DeleteImage(ctx context.Context, id string) error { return images.remove(ctx, d, id) }

package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/bangervm/banger/api"
)

// Images lists the local images.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	var out []api.Image
	err := c.call(ctx, http.MethodGet, route("images"), nil, nil, &out)
	return out, err
}

// Image gives one local image.
func (c *Client) Image(ctx context.Context, name string) (api.Image, error) {
	var out api.Image
	err := c.call(ctx, http.MethodGet, route("images", name), nil, nil, &out)
	return out, err
}

// PullImage begins a pull; the operation's result is the api.Image.
func (c *Client) PullImage(ctx context.Context, req api.PullImage) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("images", "pull"), nil, req)
}

// BundleImage begins writing an image to one file; the operation's result is the
// api.Bundle.
func (c *Client) BundleImage(ctx context.Context, name string, req api.BundleImage) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("images", name, "bundle"), nil, req)
}

// ImageCatalog lists the images that can be pulled by bare name.
func (c *Client) ImageCatalog(ctx context.Context) ([]api.CatalogEntry, error) {
	return c.catalog(ctx, "images", false)
}

// RefreshImageCatalog is ImageCatalog after every catalog was asked for what is
// new; what could not be asked, Catalogs tells.
func (c *Client) RefreshImageCatalog(ctx context.Context) ([]api.CatalogEntry, error) {
	return c.catalog(ctx, "images", true)
}

// ImportImage begins making an image from a file or folder of the daemon's host;
// the operation's result is the api.Image.
func (c *Client) ImportImage(ctx context.Context, req api.ImportImage) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("images", "import"), nil, req)
}

// ImportImageStream sends an archive and begins making an image from it; req.Path
// is ignored.
func (c *Client) ImportImageStream(ctx context.Context, req api.ImportImage, archive io.Reader) (api.Operation, error) {
	q := url.Values{}
	for key, value := range map[string]string{"name": req.Name, "reference": req.Reference, "kernel": req.Kernel, "work_seed": req.WorkSeed} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if req.Replace {
		q.Set("replace", "true")
	}
	return c.begin(ctx, http.MethodPost, route("images", "import-stream"), q, archive)
}

// RegisterImage begins making an image of a file that stays the user's own.
func (c *Client) RegisterImage(ctx context.Context, req api.RegisterImage) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("images", "register"), nil, req)
}

// PromoteImage begins copying a registered image under banger's management.
func (c *Client) PromoteImage(ctx context.Context, name string, req api.PromoteImage) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("images", name, "promote"), nil, req)
}

// DeleteImage deletes a name of an image, or all of an id, and the image with its
// last.
func (c *Client) DeleteImage(ctx context.Context, ref string) (api.Result, error) {
	var out api.Result
	err := c.call(ctx, http.MethodDelete, route("images", ref), nil, nil, &out)
	return out, err
}

// PruneImages deletes images and downloads that nothing uses.
func (c *Client) PruneImages(ctx context.Context, req api.PruneImages) (api.PrunedImages, error) {
	var out api.PrunedImages
	err := c.call(ctx, http.MethodPost, route("images", "prune"), nil, req, &out)
	return out, err
}

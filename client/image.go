package client

import (
	"context"
	"net/http"

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

// ImageCatalog lists the images that can be pulled by bare name.
func (c *Client) ImageCatalog(ctx context.Context) ([]api.CatalogEntry, error) {
	var out []api.CatalogEntry
	err := c.call(ctx, http.MethodGet, route("images", "catalog"), nil, nil, &out)
	return out, err
}

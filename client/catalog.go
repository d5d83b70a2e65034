package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/bangervm/banger/api"
)

// Catalogs lists the catalogs, banger's own first, and how each was last read.
func (c *Client) Catalogs(ctx context.Context) ([]api.Catalog, error) {
	var out []api.Catalog
	err := c.call(ctx, http.MethodGet, route("catalogs"), nil, nil, &out)
	return out, err
}

func (c *Client) catalog(ctx context.Context, nouns string, refresh bool) ([]api.CatalogEntry, error) {
	q := url.Values{}
	if refresh {
		q.Set("refresh", "true")
	}
	var out []api.CatalogEntry
	err := c.call(ctx, http.MethodGet, route(nouns, "catalog"), q, nil, &out)
	return out, err
}

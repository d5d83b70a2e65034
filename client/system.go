package client

import (
	"context"
	"net/http"

	"github.com/bangervm/banger/api"
)

// FetchFirecracker begins a fetch; the operation's result is the
// api.Firecracker.
func (c *Client) FetchFirecracker(ctx context.Context, req api.FetchFirecracker) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("system", "firecracker"), nil, req)
}

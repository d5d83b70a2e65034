package client

import (
	"context"
	"net/http"

	"github.com/bangervm/banger/api"
)

// Daemon is the daemon's account of itself.
func (c *Client) Daemon(ctx context.Context) (api.Daemon, error) {
	var out api.Daemon
	err := c.call(ctx, http.MethodGet, route("daemon"), nil, nil, &out)
	return out, err
}

// StopDaemon asks the daemon to leave; its VMs run on.
func (c *Client) StopDaemon(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, route("daemon", "stop"), nil, struct{}{}, nil)
}

// Doctor runs the daemon's checks of its host.
func (c *Client) Doctor(ctx context.Context) ([]api.Check, error) {
	var out []api.Check
	err := c.call(ctx, http.MethodGet, route("doctor"), nil, nil, &out)
	return out, err
}

// Config gives the daemon's settings and where each came from.
func (c *Client) Config(ctx context.Context) ([]api.ConfigValue, error) {
	var out []api.ConfigValue
	err := c.call(ctx, http.MethodGet, route("config"), nil, nil, &out)
	return out, err
}

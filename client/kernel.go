package client

import (
	"context"
	"net/http"

	"github.com/bangervm/banger/api"
)

// Kernels lists the local kernels.
func (c *Client) Kernels(ctx context.Context) ([]api.Kernel, error) {
	var out []api.Kernel
	err := c.call(ctx, http.MethodGet, route("kernels"), nil, nil, &out)
	return out, err
}

// Kernel gives one local kernel.
func (c *Client) Kernel(ctx context.Context, name string) (api.Kernel, error) {
	var out api.Kernel
	err := c.call(ctx, http.MethodGet, route("kernels", name), nil, nil, &out)
	return out, err
}

// PullKernel begins a pull; the operation's result is the api.Kernel.
func (c *Client) PullKernel(ctx context.Context, req api.Pull) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("kernels", "pull"), nil, req)
}

// KernelCatalog lists the kernels that can be pulled by bare name.
func (c *Client) KernelCatalog(ctx context.Context) ([]api.CatalogEntry, error) {
	var out []api.CatalogEntry
	err := c.call(ctx, http.MethodGet, route("kernels", "catalog"), nil, nil, &out)
	return out, err
}

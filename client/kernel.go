package client

import (
	"context"
	"net/http"
	"net/url"

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
	return c.catalog(ctx, "kernels", false)
}

// RefreshKernelCatalog is to kernels what RefreshImageCatalog is to images.
func (c *Client) RefreshKernelCatalog(ctx context.Context) ([]api.CatalogEntry, error) {
	return c.catalog(ctx, "kernels", true)
}

// ImportKernel begins an import; the operation's result is the api.Kernel.
func (c *Client) ImportKernel(ctx context.Context, req api.ImportKernel) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("kernels", "import"), nil, req)
}

// DeleteKernel deletes a kernel by its exact name or id. A dry run gives what
// a deletion would, and deletes nothing.
func (c *Client) DeleteKernel(ctx context.Context, ref string, dryRun bool) (api.Result, error) {
	var out api.Result
	q := url.Values{}
	if dryRun {
		q.Set("dry_run", "true")
	}
	err := c.call(ctx, http.MethodDelete, route("kernels", ref), q, nil, &out)
	return out, err
}

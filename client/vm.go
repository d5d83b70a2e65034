package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/bangervm/banger/api"
)

// VMs lists the VMs that match all filters (label=K, label=K=V, status=S).
func (c *Client) VMs(ctx context.Context, filters ...string) ([]api.VM, error) {
	var out []api.VM
	err := c.call(ctx, http.MethodGet, route("vms"), url.Values{"filter": filters}, nil, &out)
	return out, err
}

// VM looks one VM up by exact name, exact id or a prefix only it has.
func (c *Client) VM(ctx context.Context, ref string) (api.VM, error) {
	var out api.VM
	err := c.call(ctx, http.MethodGet, route("vms", ref), nil, nil, &out)
	return out, err
}

// CreateVM begins the creation of a VM; unless NoStart is set it is also
// started. The operation's result is the api.VM.
func (c *Client) CreateVM(ctx context.Context, req api.CreateVM) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("vms"), nil, req)
}

// StartVM begins the start of a VM.
func (c *Client) StartVM(ctx context.Context, ref string) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("vms", ref, "start"), nil, struct{}{})
}

// StopVM begins an orderly stop.
func (c *Client) StopVM(ctx context.Context, ref string, req api.StopVM) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("vms", ref, "stop"), nil, req)
}

// RestartVM begins a stop followed by a start.
func (c *Client) RestartVM(ctx context.Context, ref string) (api.Operation, error) {
	return c.begin(ctx, http.MethodPost, route("vms", ref, "restart"), nil, struct{}{})
}

// DeleteVM begins the deletion of a VM. ref is an exact name or id; force
// deletes a running one too.
func (c *Client) DeleteVM(ctx context.Context, ref string, force bool) (api.Operation, error) {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return c.begin(ctx, http.MethodDelete, route("vms", ref), q, nil)
}

// KillVM sends a signal to the VMM.
func (c *Client) KillVM(ctx context.Context, ref string, req api.KillVM) (api.VM, error) {
	var out api.VM
	err := c.call(ctx, http.MethodPost, route("vms", ref, "kill"), nil, req, &out)
	return out, err
}

// RenameVM gives a VM another name.
func (c *Client) RenameVM(ctx context.Context, ref string, req api.RenameVM) (api.VM, error) {
	var out api.VM
	err := c.call(ctx, http.MethodPost, route("vms", ref, "rename"), nil, req, &out)
	return out, err
}

// SetVM changes a VM.
func (c *Client) SetVM(ctx context.Context, ref string, req api.SetVM) (api.VM, error) {
	var out api.VM
	err := c.call(ctx, http.MethodPatch, route("vms", ref), nil, req, &out)
	return out, err
}

// WaitVM waits until a VM is as target says (api.WaitRunning and so on). A
// timeout of 0 waits as long as ctx lives.
func (c *Client) WaitVM(ctx context.Context, ref, target string, timeout time.Duration) (api.VM, error) {
	q := url.Values{"for": {target}}
	if timeout > 0 {
		q.Set("timeout_ms", millis(timeout))
	}
	var out api.VM
	err := c.call(ctx, http.MethodGet, route("vms", ref, "wait"), q, nil, &out)
	return out, err
}

// LogOptions choose what VMLogs gives.
type LogOptions struct {
	Follow  bool
	Since   time.Time // zero: from the beginning
	Tail    int       // lines; negative: all
	Console bool      // the console even where there is a session
}

// VMLogs gives a VM's log as bytes; the caller closes it. With Follow it ends
// when the VM does or ctx is done.
func (c *Client) VMLogs(ctx context.Context, ref string, opts LogOptions) (io.ReadCloser, error) {
	q := url.Values{}
	if opts.Follow {
		q.Set("follow", "true")
	}
	if opts.Console {
		q.Set("console", "true")
	}
	if opts.Tail >= 0 {
		q.Set("tail", strconv.Itoa(opts.Tail))
	}
	if !opts.Since.IsZero() {
		q.Set("since", opts.Since.UTC().Format(time.RFC3339Nano))
	}
	req, err := c.request(ctx, http.MethodGet, route("vms", ref, "logs"), q, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// PruneVMs deletes stopped VMs, or with DryRun says which would go.
func (c *Client) PruneVMs(ctx context.Context, req api.PruneVMs) ([]api.Result, error) {
	var out []api.Result
	err := c.call(ctx, http.MethodPost, route("vms", "prune"), nil, req, &out)
	return out, err
}

func millis(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10)
}

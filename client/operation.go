package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/bangervm/banger/api"
)

// begin does a request that answers with an operation.
func (c *Client) begin(ctx context.Context, method, path string, query url.Values, body any) (api.Operation, error) {
	var out api.Operation
	err := c.call(ctx, method, path, query, body, &out)
	return out, err
}

// Operations lists the operations the daemon remembers.
func (c *Client) Operations(ctx context.Context) ([]api.Operation, error) {
	var out []api.Operation
	err := c.call(ctx, http.MethodGet, route("operations"), nil, nil, &out)
	return out, err
}

// Operation gives one operation as it is now.
func (c *Client) Operation(ctx context.Context, id string) (api.Operation, error) {
	var out api.Operation
	err := c.call(ctx, http.MethodGet, route("operations", id), nil, nil, &out)
	return out, err
}

// WaitOperation waits for the end of an operation. A timeout of 0 waits as long
// as ctx lives. How the operation ended is in its Status, not in the error.
func (c *Client) WaitOperation(ctx context.Context, id string, timeout time.Duration) (api.Operation, error) {
	q := url.Values{}
	if timeout > 0 {
		q.Set("timeout_ms", millis(timeout))
	}
	var out api.Operation
	err := c.call(ctx, http.MethodGet, route("operations", id, "wait"), q, nil, &out)
	return out, err
}

// CancelOperation asks a running operation to undo itself.
func (c *Client) CancelOperation(ctx context.Context, id string) (api.Operation, error) {
	var out api.Operation
	err := c.call(ctx, http.MethodPost, route("operations", id, "cancel"), nil, struct{}{}, &out)
	return out, err
}

// PruneOperations forgets finished operations and returns them.
func (c *Client) PruneOperations(ctx context.Context) ([]api.Operation, error) {
	var out []api.Operation
	err := c.call(ctx, http.MethodPost, route("operations", "prune"), nil, struct{}{}, &out)
	return out, err
}

// WatchOperation calls fn, in this goroutine, with each state of an operation
// and returns the final one. How it ended is in its Status, not in the error.
func (c *Client) WatchOperation(ctx context.Context, id string, fn func(api.Operation)) (api.Operation, error) {
	body, err := c.subscribe(ctx, route("operations", id, "events"), nil)
	if err != nil {
		return api.Operation{}, err
	}
	defer body.Close()
	var last api.Operation
	events := newEventReader(body)
	for {
		ev, err := events.next()
		if err != nil {
			if ctx.Err() != nil {
				return last, contextError(ctx)
			}
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return last, api.Errorf(api.KindUnavailable, "cannot follow operation %s: the daemon went away: %w", id, err).
				WithHint("banger operation wait %s", id)
		}
		// Into a fresh value: decoding over the last one would keep keys that are gone.
		var op api.Operation
		if err := json.Unmarshal(ev.data, &op); err != nil {
			return last, api.Errorf(api.KindInternal, "cannot follow operation %s: %w", id, err)
		}
		last = op
		if fn != nil {
			fn(op)
		}
		if Finished(op) {
			return op, nil
		}
	}
}

// Finished says whether an operation came to its end.
func Finished(op api.Operation) bool {
	return op.FinishedAt != nil || op.Status != api.OperationRunning && op.Status != ""
}

// OperationError is why an operation did not succeed, with its id; nil when it
// did.
func OperationError(op api.Operation) error {
	if op.Status == api.OperationSucceeded {
		return nil
	}
	e := op.Error
	if e == nil {
		kind := api.KindInternal
		switch op.Status {
		case api.OperationCancelled:
			kind = api.KindCancelled
		case api.OperationInterrupted:
			kind = api.KindUnavailable
		}
		e = api.Errorf(kind, "operation %s (%s) ended as %s", op.ID, op.Kind, op.Status)
	}
	c := *e
	if c.OperationID == "" {
		c.OperationID = op.ID
	}
	return &c
}

// Result decodes what a finished operation made; a failed one gives its error.
func Result[T any](op api.Operation) (T, error) {
	var out T
	if err := OperationError(op); err != nil {
		return out, err
	}
	if len(op.Result) == 0 {
		return out, api.Errorf(api.KindInternal, "operation %s (%s) gave no result", op.ID, op.Kind)
	}
	if err := json.Unmarshal(op.Result, &out); err != nil {
		return out, api.Errorf(api.KindInternal, "cannot read the result of operation %s: %w", op.ID, err)
	}
	return out, nil
}

package keeper

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
)

// maxState bounds a reply of a keeper, in bytes.
const maxState = 1 << 20

// Client talks to one keeper. Its methods may be called from several
// goroutines.
type Client struct {
	dir    layout.VMDir
	bootID string
	http   *http.Client
	life   *life
}

// Attach finds the running keeper of the VM in dir. The error is of kind
// not-found when none answers; its exit file, if it left one, is then read with
// LastExit.
func Attach(ctx context.Context, dir layout.VMDir) (*Client, error) {
	c := newClient(dir)
	for {
		s, err := c.State(ctx)
		if err != nil {
			return nil, err
		}
		life, err := watchLife(s.PID)
		if err != nil {
			return nil, api.Errorf(api.KindNotFound, "cannot find the keeper of the VM in %s: process %d: %w", dir.State, s.PID, err)
		}
		// Asked again, so that the process watched is the one that answers.
		again, err := c.State(ctx)
		if err != nil {
			life.close()
			return nil, err
		}
		if again.PID == s.PID && again.BootID == s.BootID {
			c.bootID, c.life = s.BootID, life
			return c, nil
		}
		life.close()
	}
}

func newClient(dir layout.VMDir) *Client {
	return &Client{dir: dir, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialUnix(ctx, dir.KeeperSocket())
		},
		MaxIdleConns:    2,
		IdleConnTimeout: 5 * time.Second,
	}}}
}

// goneClient is the client of a keeper that has come and gone.
func goneClient(dir layout.VMDir, bootID string) *Client {
	c := newClient(dir)
	c.bootID, c.life = bootID, ended()
	return c
}

// Close lets go of the keeper, which runs on.
func (c *Client) Close() error {
	c.life.close()
	c.http.CloseIdleConnections()
	return nil
}

// BootID tells this life of the VM from others.
func (c *Client) BootID() string { return c.bootID }

// Done is closed when the keeper process is gone, and its VMM with it.
func (c *Client) Done() <-chan struct{} { return c.life.done }

// Exit is the keeper's last word; false while it lives, and when it died
// without one: then it was killed, and its VMM with it.
func (c *Client) Exit() (vmm.Exit, bool) {
	select {
	case <-c.life.done:
		return readExit(c.dir)
	default:
		return vmm.Exit{}, false
	}
}

// LastExit reads the last word of the keeper that was last there.
func LastExit(dir layout.VMDir) (vmm.Exit, bool) { return readExit(dir) }

func readExit(dir layout.VMDir) (vmm.Exit, bool) {
	var e vmm.Exit
	b, err := os.ReadFile(dir.ExitFile())
	if err != nil || json.Unmarshal(b, &e) != nil || e.Reason == "" {
		return vmm.Exit{}, false
	}
	return e, true
}

// State asks for the state now.
func (c *Client) State(ctx context.Context) (State, error) {
	var s State
	return s, c.do(ctx, http.MethodGet, "state", nil, &s)
}

// Watch gives the state now and at each change. The channel is closed when the
// keeper is gone or ctx ends. Only the newest state waits for a slow reader.
func (c *Client) Watch(ctx context.Context) (<-chan State, error) {
	resp, err := c.request(ctx, http.MethodGet, "watch", nil)
	if err != nil {
		return nil, err
	}
	states := make(chan State, 1)
	go func() { // ends with ctx or the keeper
		defer close(states)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 64<<10)
		for lines.Scan() {
			var s State
			if json.Unmarshal(lines.Bytes(), &s) != nil {
				return
			}
			select {
			case <-states: // out of date
			default:
			}
			states <- s
		}
	}()
	return states, nil
}

// PowerButton asks the guest to power off.
func (c *Client) PowerButton(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "power-button", nil, nil)
}

// Kill ends the VM at once; Done follows.
func (c *Client) Kill(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "kill", nil, nil)
}

// Pause stops the guest's processors.
func (c *Client) Pause(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "pause", nil, nil)
}

// Resume lets them go on.
func (c *Client) Resume(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "resume", nil, nil)
}

// Resize tells the guest that the file of the disk has grown.
func (c *Client) Resize(ctx context.Context, serial string, bytes int64) error {
	return c.do(ctx, http.MethodPost, "resize", resizeRequest{serial, bytes}, nil)
}

// DialGuest opens one stream to the guest's agent. The stream exists at once;
// what is written waits for a guest that is not up yet. It ends when the guest
// cannot be reached.
func (c *Client) DialGuest(ctx context.Context) (net.Conn, error) {
	return c.dial(ctx, c.dir.GuestSocket())
}

// DialBulk is DialGuest by the fastest way into the guest.
func (c *Client) DialBulk(ctx context.Context) (net.Conn, error) {
	return c.dial(ctx, c.dir.BulkSocket())
}

func (c *Client) dial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := dialUnix(ctx, path)
	if err != nil {
		return nil, c.lost(ctx, "reach the guest", err)
	}
	return conn, nil
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// do makes one request; in and out are bodies or nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxState))
	if err != nil {
		return c.lost(ctx, "read the keeper's reply", err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return api.Errorf(api.KindInternal, "cannot read the keeper's reply: %w", err)
	}
	return nil
}

// request gives a reply that is a success.
func (c *Client) request(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://keeper/v1/"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, "reach the keeper", err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return resp, nil
	}
	defer resp.Body.Close()
	var e api.ErrorReply
	if json.NewDecoder(io.LimitReader(resp.Body, maxState)).Decode(&e) != nil || e.Error == nil {
		return nil, api.Errorf(api.KindInternal, "cannot ask the keeper: it answered with status %d", resp.StatusCode)
	}
	return nil, e.Error
}

// lost gives the failure of a connection its kind: not-found when no keeper
// listens.
func (c *Client) lost(ctx context.Context, what string, err error) error {
	text := fmt.Sprintf("cannot %s of the VM in %s", what, c.dir.State)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "%s: it does not answer", text)
	case ctx.Err() != nil:
		return api.Errorf(api.KindCancelled, "%s: %w", text, ctx.Err())
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return api.Errorf(api.KindNotFound, "%s: no keeper runs", text)
	}
	return api.Errorf(api.KindUnavailable, "%s: %w", text, err)
}

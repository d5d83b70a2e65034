package fcapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
)

const (
	// maxRequest is what Firecracker takes of a body, in bytes.
	maxRequest = 51200
	// maxReply bounds what is read of a reply, in bytes.
	maxReply = 64 << 10
)

// Fault is a request that Firecracker refused.
type Fault struct {
	Status  int
	Message string
}

func (f *Fault) Error() string {
	if f.Message == "" {
		return fmt.Sprintf("status %d", f.Status)
	}
	return f.Message
}

// Client speaks to one Firecracker. Its methods may be called from several
// goroutines; Firecracker answers one at a time.
type Client struct{ http *http.Client }

// New makes a client of the socket. Nothing is connected before the first call.
func New(socket string) *Client {
	var dialer net.Dialer
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
		MaxConnsPerHost:    2, // of the ten there may be
		IdleConnTimeout:    time.Minute,
		// A head beyond this is an error.
		MaxResponseHeaderBytes: 16 << 10,
	}}}
}

// Close lets go of the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version is what Firecracker calls itself, e.g. 1.12.1.
func (c *Client) Version(ctx context.Context) (string, error) {
	var v struct {
		Version string `json:"firecracker_version"`
	}
	if err := c.do(ctx, http.MethodGet, "/version", nil, &v); err != nil {
		return "", err
	}
	return v.Version, nil
}

// Put sets one thing up, before the start.
func (c *Client) Put(ctx context.Context, path string, body any) error {
	return c.do(ctx, http.MethodPut, path, body, nil)
}

// Patch changes one.
func (c *Client) Patch(ctx context.Context, path string, body any) error {
	return c.do(ctx, http.MethodPatch, path, body, nil)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		if len(b) > maxRequest {
			return fmt.Errorf("a request of %d bytes exceeds %d", len(b), maxRequest)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://firecracker"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return err
	case len(b) > maxReply:
		return fmt.Errorf("a reply exceeds %d bytes", maxReply)
	}
	return parseReply(resp.StatusCode, b, out)
}

func parseReply(status int, body []byte, out any) error {
	if status < 200 || status > 299 {
		var f struct {
			Message string `json:"fault_message"`
		}
		if json.Unmarshal(body, &f) != nil {
			f.Message = ""
		}
		return &Fault{status, printable(f.Message)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return errors.New("a reply that is not JSON of the right form")
	}
	return nil
}

// maxMessage is how much of a message is shown.
const maxMessage = 1000

// printable makes a message one line that moves no terminal.
func printable(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + "…"
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}

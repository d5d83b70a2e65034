package guestlink

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
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// saying is a guest that reads the request and answers with text, whatever was
// asked.
func saying(text string) DialFunc {
	return func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			_, _ = b.Read(make([]byte, 64<<10))
			_, _ = io.Copy(b, strings.NewReader(text))
			_ = b.Close()
		}()
		return a, nil
	}
}

func TestLyingAgent(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	upgraded := "HTTP/1.1 101 Switching Protocols\r\n\r\n"
	health := func(c *Client) error { _, err := c.Health(t.Context()); return err }
	exec := func(c *Client) error {
		s, err := c.Exec(t.Context(), guestapi.ExecRequest{}, ExecOptions{})
		if err != nil {
			return err
		}
		defer s.Close()
		_, _, err = s.Recv()
		return err
	}
	for _, tc := range []struct {
		name, text string
		call       func(*Client) error
		want       api.Kind
	}{
		{"nothing", "", health, api.KindUnavailable},
		{"no http", strings.Repeat("x", 1<<20), health, api.KindGuest},
		{"endless header", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 1<<20), health, api.KindGuest},
		{"endless body", head + "\r\n" + strings.Repeat("[", 1<<20), health, api.KindGuest},
		{"no json", head + "Content-Length: 2\r\n\r\n{]", health, api.KindGuest},
		{"other protocol", head + "Content-Length: 14\r\n\r\n{\"protocol\":9}", health, api.KindUnsupported},
		{"error", "HTTP/1.1 400 Bad\r\n\r\n{\"error\":{\"kind\":\"invalid\",\"message\":\"\\u001b[2Jbad\"}}", health, api.KindInvalid},
		{"error of a kind unknown", "HTTP/1.1 500 Bad\r\n\r\n{\"error\":{\"kind\":\"x\",\"message\":\"bad\"}}", health, api.KindGuest},
		{"exec refused", "HTTP/1.1 200 OK\r\n\r\n{}", exec, api.KindGuest},
		{"exec endless header", "HTTP/1.1 101 OK\r\nA: " + strings.Repeat("x", 1<<20), exec, api.KindUnavailable},
		{"exec ends", upgraded, exec, api.KindUnavailable},
		{"exec frame cut", upgraded + "\x01\x00\x00\x00\x09abc", exec, api.KindUnavailable},
		{"exec frame too long", upgraded + "\x01\xff\xff\xff\xff", exec, api.KindGuest},
		{"exec bad channel", upgraded + "\x09\x00\x00\x00\x00", exec, api.KindGuest},
		{"exec bad credit", upgraded + "\x05\x00\x00\x00\x01x", exec, api.KindGuest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := tc.call(NewClient(saying(tc.text), nil))
			if api.KindOf(err) != tc.want {
				t.Errorf("got %v (%s), want kind %s", err, api.KindOf(err), tc.want)
			}
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("control characters in %q", err.Error())
			}
		})
	}
}

func TestSilentAgent(t *testing.T) {
	t.Parallel()
	c := NewClient(func(context.Context) (net.Conn, error) { a, _ := net.Pipe(); return a, nil }, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Health(ctx); api.KindOf(err) != api.KindTimeout {
		t.Errorf("health: %v", err)
	}
	ctx, cancel2 := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel2)
	if _, err := c.Exec(ctx, guestapi.ExecRequest{}, ExecOptions{}); api.KindOf(err) != api.KindCancelled {
		t.Errorf("exec: %v", err)
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 400 Bad\r\n\r\n{\"error\":{\"kind\":\"invalid\",\"message\":\"m\"}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		status, body, err := readReply(bufio.NewReader(io.LimitReader(bytes.NewReader(data), maxReply)))
		if err != nil {
			return
		}
		var h guestapi.Health
		if err := decodeReply(status, body, &h); err != nil {
			var e *api.Error
			if !errors.As(err, &e) || strings.ContainsFunc(e.Message, unicode.IsControl) {
				t.Errorf("error %q", err)
			}
		}
	})
}

// readOnly is a connection whose other end already said everything.
type readOnly struct {
	net.Conn
	r io.Reader
}

func (c readOnly) Read(p []byte) (int, error) { return c.r.Read(p) }

func FuzzExecStream(f *testing.F) {
	f.Add([]byte("\x06\x00\x00\x00\x02{}\x01\x00\x00\x00\x01x\x07\x00\x00\x00\x02{}"))
	f.Add([]byte("\x05\x00\x00\x00\x04\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &ExecStream{conn: readOnly{}, r: bufio.NewReader(bytes.NewReader(data))}
		for {
			ch, p, err := s.Recv()
			if err != nil {
				return
			}
			if len(p) > guestapi.MaxFrame {
				t.Fatalf("a payload of %d bytes", len(p))
			}
			if ch == guestapi.ChannelExit {
				var e guestapi.Exit
				_ = json.Unmarshal(p, &e)
			}
		}
	})
}

// A clock that is off is moved by how much; one that is right stays, however
// late the guest answers.
func TestSyncTime(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		off, late time.Duration
		moved     bool
	}{
		"right":            {0, 0, false},
		"right, late":      {0, 300 * time.Millisecond, false},
		"behind":           {-6 * time.Second, 0, true},
		"ahead, late":      {time.Hour, 300 * time.Millisecond, true},
		"from another era": {-1 << 62, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			off, moved := tt.off, 0
			c := NewClient(func(context.Context) (net.Conn, error) {
				a, b := net.Pipe()
				go func() {
					defer b.Close()
					r, err := http.ReadRequest(bufio.NewReader(b))
					var ask guestapi.Time
					if err != nil || json.NewDecoder(r.Body).Decode(&ask) != nil {
						return
					}
					time.Sleep(tt.late) // on its way
					mu.Lock()
					if ask.AdjustNano != 0 {
						moved++
						off += time.Duration(ask.AdjustNano)
					}
					reply, _ := json.Marshal(guestapi.TimeReply{UnixNano: time.Now().UnixNano() + int64(off)})
					mu.Unlock()
					fmt.Fprintf(b, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(reply), reply)
				}()
				return a, nil
			}, nil)
			if err := c.SyncTime(t.Context()); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if moved > 0 != tt.moved || off.Abs() > clockRight+tt.late {
				t.Errorf("moved %d times, off by %s", moved, off)
			}
		})
	}
}

// clockRight is what SyncTime may leave, on a busy machine.
const clockRight = 500 * time.Millisecond

package guest

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

func TestReadCall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in   string
		want call
		kind api.Kind // empty: no error
	}{
		"health":        {in: "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n", want: call{method: "GET", path: "/v1/health"}},
		"bare newlines": {in: "GET / HTTP/1.0\n\n", want: call{method: "GET", path: "/"}},
		"upgrade":       {in: "POST /v1/exec HTTP/1.1\r\nconnection: upgrade\r\nUPGRADE:  a/1 \r\n\r\nrest", want: call{method: "POST", path: "/v1/exec", upgrade: "a/1"}},
		"body":          {in: "POST /v1/time HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", want: call{method: "POST", path: "/v1/time", length: 2}},
		"long header":   {in: "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n", want: call{method: "GET", path: "/"}},
		"no http":       {in: "hello\r\n\r\n", kind: api.KindInvalid},
		"http 2":        {in: "PRI * HTTP/2.0\r\n\r\n", kind: api.KindInvalid},
		"no header":     {in: "GET / HTTP/1.1\r\nhello\r\n\r\n", kind: api.KindInvalid},
		"long head":     {in: "GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 4000), kind: api.KindInvalid},
		"endless line":  {in: strings.Repeat("x", 20000), kind: api.KindInvalid},
		"large body":    {in: "POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", kind: api.KindInvalid},
		"negative body": {in: "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", kind: api.KindInvalid},
		"chunks":        {in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", kind: api.KindInvalid},
		"cut off":       {in: "GET / HTTP/1.1\r\nHost", kind: api.KindInternal},
		"nothing":       {kind: api.KindInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := readCall(&scripted{in: strings.NewReader(c.in)})
			if api.KindOf(err) != c.kind {
				t.Fatalf("error %v, want kind %q", err, c.kind)
			}
			if err == nil && (got.method != c.want.method || got.path != c.want.path || got.upgrade != c.want.upgrade || got.length != c.want.length) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// Every answer is whole, and a request that panics takes nothing along.
func TestServeConn(t *testing.T) {
	t.Parallel()
	a := NewAgent(Options{Build: "b", System: System{Grow: func(string) (int64, error) { panic("boom") }}}, slog.New(slog.DiscardHandler))
	defer a.Close()
	for in, want := range map[string]string{
		"GET /v1/health HTTP/1.1\r\n\r\n":                       "HTTP/1.1 200 ",
		"GET /v1/nothing HTTP/1.1\r\n\r\n":                      `HTTP/1.1 404 `,
		"POST /v1/exec HTTP/1.1\r\n\r\n":                        `"kind":"invalid"`,
		"POST /v1/time HTTP/1.1\r\nContent-Length: 1\r\n\r\n{":  `"kind":"invalid"`,
		"POST /v1/time HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}": `"kind":"unsupported"`,
		"POST /v1/sync HTTP/1.1\r\n\r\n":                        "HTTP/1.1 204 ",
		"POST /v1/grow HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}": "",
		"hello\r\n\r\n": `"kind":"invalid"`,
	} {
		c := &scripted{in: strings.NewReader(in)}
		a.serveConn(c)
		if got := c.out.String(); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q: answered %q, want %q", in, got, want)
		}
	}
}

// scripted is a connection with a client that has said all it will say.
type scripted struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *scripted) Close() error                { return nil }

func (s *scripted) SetDeadline(time.Time) error     { return nil }
func (s *scripted) SetReadDeadline(time.Time) error { return nil }

func FuzzReadCall(f *testing.F) {
	f.Add([]byte("POST /v1/exec HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("GET / HTTP/1.1\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := readCall(&scripted{in: bytes.NewReader(data)})
		if err == nil && (c.length < 0 || c.length > maxBody || len(c.path) > maxHead) {
			t.Errorf("%q became %+v", data, c)
		}
	})
}

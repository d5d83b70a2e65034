package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

// content is what the server has: several buffers long.
func content() []byte {
	b := make([]byte, 1<<20+7)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

// server answers the nth request, from 0, as the test says.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string // Range and If-Range of each request
	handle func(n int, w http.ResponseWriter, r *http.Request)
}

func serve(t *testing.T, handle func(n int, w http.ResponseWriter, r *http.Request)) *server {
	t.Helper()
	s := &server{handle: handle}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		n := len(s.asked)
		s.asked = append(s.asked, strings.TrimSpace(r.Header.Get("Range")+" "+r.Header.Get("If-Range")))
		s.mu.Unlock()
		s.handle(n, w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// requests gives what was asked so far.
func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// whole answers as a good server does: ranges, tags, dates.
func whole(w http.ResponseWriter, r *http.Request, b []byte, tag string) {
	if tag != "" {
		w.Header().Set("ETag", tag)
	}
	http.ServeContent(w, r, "", time.Unix(1_000_000, 0), bytes.NewReader(b))
}

// cut is a ResponseWriter whose connection breaks after some bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) >= c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func client(opt Options) *Client {
	opt.Pause = func(int) time.Duration { return 0 }
	return New(opt)
}

// get downloads and checks what is there afterwards.
func get(t *testing.T, c *Client, url string, want []byte) error {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	err := c.File(t.Context(), url, path, 1<<30, nil)
	if err != nil {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%v, left %v", err, left)
		}
		return err
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%d bytes are not the %d wanted, %v", len(b), len(want), err)
	}
	return nil
}

func TestABrokenDownloadGoesOn(t *testing.T) {
	t.Parallel()
	b := content()
	for name, c := range map[string]struct {
		handle func(n int, w http.ResponseWriter, r *http.Request)
		asked  []string
	}{
		"where it broke": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n < 2 {
				w = &cut{w, 300_000}
			}
			whole(w, r, b, `"one"`)
		}, []string{"", `bytes=300000- "one"`, `bytes=600000- "one"`}},
		"by the date": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 0 {
				w = &cut{w, 300_000}
			}
			whole(w, r, b, "")
		}, []string{"", "bytes=300000- Mon, 12 Jan 1970 13:46:40 GMT"}},
		"from the beginning, of another version": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 0 {
				whole(&cut{w, 300_000}, r, bytes.Repeat([]byte("old"), len(b)/3), `"old"`)
			}
			whole(w, r, b, `"new"`)
		}, []string{"", `bytes=300000- "old"`}},
		"from the beginning, where the tag is weak and there is no date": {func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `W/"one"`)
			if n == 0 {
				w = &cut{w, 300_000}
			}
			_, _ = w.Write(b)
		}, []string{"", ""}},
		"after a server's error": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			whole(w, r, b, `"one"`)
		}, []string{"", ""}},
		"from the beginning, after the wrong part": {func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 0:
				whole(&cut{w, 300_000}, r, b, `"one"`)
			case 1:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(b)-1, len(b)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(b[5:])
			default:
				whole(w, r, b, `"one"`)
			}
		}, []string{"", `bytes=300000- "one"`, ""}},
		"from the beginning, when it is not satisfiable": {func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 0:
				whole(&cut{w, 300_000}, r, b, `"one"`)
			case 1:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			default:
				whole(w, r, b, `"one"`)
			}
		}, []string{"", `bytes=300000- "one"`, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.handle)
			if err := get(t, client(Options{}), s.URL, b); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.asked, s.requests()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestItIsGivenUp(t *testing.T) {
	t.Parallel()
	b := content()
	for name, c := range map[string]struct {
		handle func(n int, w http.ResponseWriter, r *http.Request)
		kind   api.Kind
		asked  int
	}{
		"not there":    {func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, api.KindNotFound, 1},
		"not allowed":  {func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, api.KindDenied, 1},
		"always ill":   {func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, api.KindUnavailable, 3},
		"never a byte": {func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, api.KindUnavailable, 3},
		"never another": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n > 0 {
				panic(http.ErrAbortHandler)
			}
			whole(&cut{w, 1000}, r, b, `"one"`)
		}, api.KindUnavailable, 3},
		"always from the beginning": {func(_ int, w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			whole(&cut{w, 1000}, r, b, "")
		}, api.KindUnavailable, 3},
		"a byte each time": {func(n int, w http.ResponseWriter, r *http.Request) {
			whole(&cut{w, 1}, r, b, `"one"`)
		}, api.KindUnavailable, maxAttempts},
		"an odd answer": {func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, api.KindUnavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.handle)
			err := get(t, client(Options{Attempts: 3}), s.URL, nil)
			if api.KindOf(err) != c.kind || !strings.HasPrefix(err.Error(), "cannot get "+s.URL) || api.AsError(err).Hint == "" {
				t.Errorf("%v", err)
			}
			if n := len(s.requests()); n != c.asked && name != "never a byte" { // the library itself asks again there
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
		})
	}
}

// What will not be otherwise the next time is asked for once.
func TestItIsGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	plain := serve(t, func(int, http.ResponseWriter, *http.Request) { t.Error("it was asked by plain HTTP") })
	unknown := httptest.NewUnstartedServer(http.NotFoundHandler())
	unknown.Config.ErrorLog = log.New(io.Discard, "", 0)
	unknown.StartTLS()
	t.Cleanup(unknown.Close)
	for url, want := range map[string]string{
		strings.Replace(plain.URL, "http:", "https:", 1): "HTTP response to HTTPS client",
		unknown.URL: "certificate",
	} {
		err := get(t, client(Options{Attempts: 3}), url, nil)
		if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), want) || api.AsError(err).Retryable {
			t.Errorf("%s: to be tried again: %v: %v", url, api.AsError(err).Retryable, err)
		}
	}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	b := content()
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n < 2 { // once before the answer, once in it
			if n == 1 {
				w.Header().Set("ETag", `"one"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(b)))
				_, _ = w.Write(b[:1000])
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
			return
		}
		whole(w, r, b, `"one"`)
	})
	if err := get(t, client(Options{Silence: 300 * time.Millisecond}), s.URL, b); err != nil {
		t.Error(err)
	}
	stuck := serve(t, func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	err := get(t, client(Options{Silence: 20 * time.Millisecond, Attempts: 2}), stuck.URL, nil)
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), "nothing came for too long") {
		t.Errorf("got %v", err)
	}
}

func TestCancelledDownloadLeavesNothing(t *testing.T) {
	t.Parallel()
	b := content()
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b[:1000])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	dir := t.TempDir()
	err := client(Options{}).File(ctx, s.URL, filepath.Join(dir, "f"), 1<<30, nil)
	if left, _ := os.ReadDir(dir); api.KindOf(err) != api.KindCancelled || len(left) > 0 || len(s.requests()) != 1 {
		t.Errorf("%v, left %v, asked %d times", err, left, len(s.requests()))
	}
}

func TestSizesAreBounded(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(int, http.ResponseWriter, *http.Request){
		"said": func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r, content(), "") },
		"not said": func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(content())
		},
	} {
		s := serve(t, handle)
		dir := t.TempDir()
		err := client(Options{}).File(t.Context(), s.URL, filepath.Join(dir, "f"), 1<<20, nil)
		if left, _ := os.ReadDir(dir); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "more than 1048576 bytes") || len(left) > 0 {
			t.Errorf("%s: %v, left %v", name, err, left)
		}
		if _, _, err := client(Options{}).Bytes(t.Context(), s.URL, "", 1000); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProgressIsInBytes(t *testing.T) {
	t.Parallel()
	b := content()
	s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r, b, "") })
	var last, all int64
	err := client(Options{}).File(t.Context(), s.URL, filepath.Join(t.TempDir(), "f"), 1<<30, func(done, total int64) {
		if done <= last {
			t.Errorf("%d after %d", done, last)
		}
		last, all = done, total
	})
	if err != nil || last != int64(len(b)) || all != last {
		t.Errorf("%d of %d, %v", last, all, err)
	}
}

func TestWhatIsThereIsKept(t *testing.T) {
	t.Parallel()
	s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r, content(), "") })
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := client(Options{}).File(t.Context(), s.URL, path, 1<<30, nil)
	if b, _ := os.ReadFile(path); err == nil || string(b) != "mine" || len(s.requests()) != 0 {
		t.Errorf("%v, %q", err, b)
	}
}

func TestTheDisksErrorIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r, content(), "") })
	c := client(Options{})
	u, err := c.Check(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	d := &download{c: c, u: u, f: full, path: "/dev/full", limit: 1 << 30, report: func(int64, int64) {}}
	a, err := c.ask(t.Context(), u, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	if err := d.copy(t.Context(), a); api.KindOf(err) != api.KindNoSpace || api.AsError(err).Retryable {
		t.Errorf("got %v", err)
	}
	if err := written(u, "/x/y", syscall.EIO); api.KindOf(err) != api.KindInternal {
		t.Errorf("got %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	c := New(Options{Plain: func(host string) bool { return host == "plain.example:8080" }})
	for url, kind := range map[string]api.Kind{
		"https://x.example/f":          "",
		"http://127.0.0.1:8080/f":      "",
		"http://[::1]/f":               "",
		"http://localhost/f":           "",
		"http://plain.example:8080/f":  "",
		"http://plain.example/f":       api.KindDenied,
		"http://x.example/f":           api.KindDenied,
		"http://127.0.0.1.x.example/f": api.KindDenied,
		"http://localhost.x.example/f": api.KindDenied,
		"http://me:secret@x.example/f": api.KindDenied,
		"ftp://x.example/f":            api.KindInvalid,
		"file:///etc/passwd":           api.KindInvalid,
		"https:///f":                   api.KindInvalid,
		"x.example/f":                  api.KindInvalid,
		"https://x.example/%zz":        api.KindInvalid,
		"":                             api.KindInvalid,
	} {
		if _, err := c.Check(url); api.KindOf(err) != kind || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// route is a transport that brings every host to handlers.
type route map[string]http.HandlerFunc

func (r route) RoundTrip(req *http.Request) (*http.Response, error) {
	h, ok := r[req.URL.Scheme+"://"+req.URL.Host]
	if !ok {
		return nil, fmt.Errorf("nobody is at %s", req.URL.Host)
	}
	w := httptest.NewRecorder()
	h(w, req)
	return w.Result(), nil
}

func TestRedirections(t *testing.T) {
	t.Parallel()
	to := func(url string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusFound) }
	}
	hosts := route{
		"https://good.example":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
		"https://a.example":     to("https://good.example/f"),
		"https://down.example":  to("http://127.0.0.1/f"),
		"http://127.0.0.1":      to("https://good.example/f"),
		"http://127.0.0.2":      to("http://evil.example/f"),
		"https://round.example": to("https://round.example/f"),
		"https://file.example":  to("file:///etc/passwd"),
	}
	for url, says := range map[string]string{
		"https://a.example":     "",
		"http://127.0.0.1":      "",
		"https://down.example":  "from https to http",
		"http://127.0.0.2":      "plain http",
		"https://round.example": "more than 10 redirections",
		"https://file.example":  "",
	} {
		b, _, err := client(Options{Transport: hosts}).Bytes(t.Context(), url, "", 100)
		switch good := says == "" && url != "https://file.example"; {
		case good && (err != nil || string(b) != "hello"):
			t.Errorf("%s: %q, %v", url, b, err)
		case !good && (err == nil || !strings.Contains(err.Error(), says)):
			t.Errorf("%s: %q, %v", url, b, err)
		}
	}
}

func TestWhatIsTheSameIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for _, etag := range []string{`"one"`, ""} {
		text := "hello"
		s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r, []byte(text), etag) })
		c := client(Options{})
		b, tag, err := c.Bytes(t.Context(), s.URL, "", 100)
		if err != nil || string(b) != "hello" || tag == "" {
			t.Fatalf("%q, %q, %v", b, tag, err)
		}
		if b, again, err := c.Bytes(t.Context(), s.URL, tag, 100); err != nil || b != nil || again != tag {
			t.Errorf("the same: %q, %q, %v", b, again, err)
		}
		if b, _, err := c.Bytes(t.Context(), s.URL, "etag \"other\"", 100); err != nil || string(b) != "hello" {
			t.Errorf("another: %q, %v", b, err)
		}
	}
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch n {
		case 0:
			w.WriteHeader(502)
		case 1:
			_, _ = io.WriteString(w, "hello")
		default:
			w.WriteHeader(304)
		}
	})
	if b, tag, err := client(Options{}).Bytes(t.Context(), s.URL, "", 100); err != nil || string(b) != "hello" || tag != "" {
		t.Errorf("after an error: %q, %q, %v", b, tag, err)
	}
	if _, _, err := client(Options{}).Bytes(t.Context(), s.URL, "", 100); err == nil {
		t.Error("304 was taken though nothing was there")
	}
}

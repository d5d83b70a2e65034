package ocitest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is what happens to a reply. The zero Fault passes it on as it is.
type Fault struct {
	Status  int    // this status instead, and Body
	Body    string // with Status
	Cut     int64  // the connection ends after so many bytes of the body; -1: before the first
	Stall   int64  // nothing more comes after so many bytes; -1: not even a header
	Corrupt bool   // one byte in the middle is another
	Longer  bool   // a byte more comes than should
	Endless bool   // far more comes: 256 MiB, where they are taken
	NoRange bool   // asked for a part, it gives all
	Shift   bool   // asked for a part, it gives one that begins a byte too early, and says so
	// Slow is the pause after each 64 KiB.
	Slow   time.Duration
	Header http.Header // added to the reply
}

// Proxy stands before a registry and does its replies harm.
type Proxy struct {
	Host string // 127.0.0.1:PORT, plain HTTP

	upstream  *Registry
	fault     func(*http.Request) Fault
	stop      chan struct{}
	mu        sync.Mutex
	requests  []string
	bodyBytes int64
}

// StartProxy starts one before a registry. fault says what is to happen to each
// request; it is called by several goroutines.
func StartProxy(t testing.TB, upstream *Registry, fault func(r *http.Request) Fault) *Proxy {
	t.Helper()
	p := &Proxy{upstream: upstream, fault: fault, stop: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	p.Host = strings.TrimPrefix(server.URL, "http://")
	t.Cleanup(func() {
		close(p.stop) // lets go of those it stalls
		server.CloseClientConnections()
		server.Close()
	})
	return p
}

// Ref gives the full reference of something behind the proxy: team/app:v1.
func (p *Proxy) Ref(what string) string { return p.Host + "/" + what }

// Requests lists what was asked: "GET /v2/… bytes=100-".
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.requests...)
}

// BlobRequests lists those for blobs.
func (p *Proxy) BlobRequests() []string {
	var blobs []string
	for _, r := range p.Requests() {
		if strings.Contains(r, "/blobs/") {
			blobs = append(blobs, r)
		}
	}
	return blobs
}

// BodyBytes is how many bytes of replies it passed on.
func (p *Proxy) BodyBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bodyBytes
}

// IsBlob says whether a request is for a blob.
func IsBlob(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests = append(p.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	p.mu.Unlock()
	f := p.fault(r)
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	if f.Status != 0 {
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
		return
	}
	if f.Stall < 0 {
		p.stall(r)
	}
	if f.Cut < 0 {
		panic(http.ErrAbortHandler)
	}
	scheme := "http"
	if p.upstream.CA != "" {
		scheme = "https"
	}
	out, err := http.NewRequestWithContext(r.Context(), r.Method, scheme+"://"+p.upstream.Host+r.URL.RequestURI(), nil)
	if err != nil {
		panic(err)
	}
	out.Header = r.Header.Clone()
	if from, to, ok := strings.Cut(r.Header.Get("Range"), "="); ok && (f.NoRange || f.Shift) {
		out.Header.Del("Range")
		if first, _, _ := strings.Cut(to, "-"); f.Shift && from == "bytes" {
			out.Header.Set("Range", "bytes="+before(first)+"-")
		}
	}
	resp, err := p.upstream.transport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for k, v := range resp.Header {
		if _, set := f.Header[k]; !set && (k != "Content-Length" || !f.Longer && !f.Endless) {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	p.copy(w, r, resp.Body, resp.ContentLength, f)
}

// copy passes the body on, with the fault in it.
func (p *Proxy) copy(w http.ResponseWriter, r *http.Request, body io.Reader, length int64, f Fault) {
	flush := func() { _ = http.NewResponseController(w).Flush() }
	var done int64
	buf := make([]byte, 64<<10)
	for {
		limit := int64(len(buf))
		for _, at := range []int64{f.Cut, f.Stall} {
			if at > 0 && at > done {
				limit = min(limit, at-done)
			}
		}
		n, err := body.Read(buf[:limit])
		if middle := length / 2; f.Corrupt && done <= middle && middle < done+int64(n) {
			buf[middle-done] ^= 1
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			done += int64(n)
			p.mu.Lock()
			p.bodyBytes += int64(n)
			p.mu.Unlock()
		}
		switch {
		case f.Cut > 0 && done >= f.Cut:
			flush()
			panic(http.ErrAbortHandler)
		case f.Stall > 0 && done >= f.Stall:
			flush()
			p.stall(r)
			panic(http.ErrAbortHandler)
		case f.Slow > 0:
			flush()
			select {
			case <-time.After(f.Slow):
			case <-r.Context().Done():
				return
			}
		}
		if err != nil {
			if f.Longer {
				_, _ = w.Write([]byte{0})
			}
			for more := 0; f.Endless && more < 256<<20; more += len(buf) {
				if _, err := w.Write(buf); err != nil {
					return
				}
				p.mu.Lock()
				p.bodyBytes += int64(len(buf))
				p.mu.Unlock()
			}
			return
		}
	}
}

// stall holds a request until its client or the test ends.
func (p *Proxy) stall(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-p.stop:
	}
}

// before gives the number before one.
func before(s string) string {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return s
	}
	return strconv.FormatInt(n-1, 10)
}

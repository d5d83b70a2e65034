package ocitest

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
)

// Forward is an HTTP proxy as HTTP_PROXY names one. Whatever host it is asked
// for, it leads to one registry, so that a test can give it any name.
type Forward struct {
	URL *url.URL

	to    *Registry
	mu    sync.Mutex
	asked []string
}

// StartForward starts one that leads to a registry.
func StartForward(t testing.TB, to *Registry) *Forward {
	t.Helper()
	f := &Forward{to: to}
	server := httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	f.URL = u
	return f
}

// Proxy is for http.Transport.
func (f *Forward) Proxy(*http.Request) (*url.URL, error) { return f.URL, nil }

// Asked lists the requests: "CONNECT registry.test:443", "GET http://…".
func (f *Forward) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

func (f *Forward) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.RequestURI)
	f.mu.Unlock()
	if r.Method == http.MethodConnect {
		f.tunnel(w)
		return
	}
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", f.to.Host
	resp, err := f.to.transport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (f *Forward) tunnel(w http.ResponseWriter) {
	there, err := net.Dial("tcp", f.to.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = there.Close() }()
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = here.Close() }()
	_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(there, here)
		_ = there.Close()
	}()
	_, _ = io.Copy(here, there)
	_ = here.Close()
	<-ended
}

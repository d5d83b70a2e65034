package oci

import (
	"context"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

func TestAProxyFromTheEnvironment(t *testing.T) {
	t.Parallel()
	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", "1")))
	secure := ocitest.Start(t, ocitest.WithTLS())
	secure.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	forward := ocitest.StartForward(t, secure)
	c := impatient(t, func(o *Options) {
		o.Proxy = forward.Proxy
		o.Registries = map[string]Registry{"registry.test": {CA: secure.CA}}
	})
	fetched(t, c, "registry.test/app:1", layer.Blob)
	for _, r := range forward.Asked() {
		if r != "CONNECT registry.test:443" {
			t.Errorf("the proxy was asked %q", r)
		}
	}
}

func TestPlainHTTPOnlyWhereAllowed(t *testing.T) {
	t.Parallel()
	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", "1")))
	plain := ocitest.Start(t)
	plain.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	for _, host := range []string{"registry.test:5000", "10.1.2.3:5000", "registry.local:5000"} {
		forward := ocitest.StartForward(t, plain)
		_, err := impatient(t, func(o *Options) { o.Proxy = forward.Proxy }).Fetch(context.Background(), parse(t, host+"/app:1"), nil)
		wantError(t, err, api.KindDenied, "banger config show", host+" speaks plain HTTP", `registries."`+host+`".plain_http = true`)
		for _, r := range forward.Asked() {
			if !strings.HasPrefix(r, "CONNECT ") {
				t.Errorf("%s was asked by plain HTTP: %q", host, r)
			}
		}
		forward = ocitest.StartForward(t, plain)
		c := impatient(t, func(o *Options) {
			o.Proxy = forward.Proxy
			o.Registries = map[string]Registry{host: {PlainHTTP: true}}
		})
		fetched(t, c, host+"/app:1", layer.Blob)
	}
}

// A registry may send us to its storage, but not to this machine, not to plain
// HTTP elsewhere, and without our login.
func TestRedirects(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t, ocitest.WithLogin("alice", "s3cret"))
	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", "1")))
	registry.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	open := ocitest.Start(t)
	open.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	storage := ocitest.StartProxy(t, open, func(r *http.Request) ocitest.Fault {
		if r.Header.Get("Authorization") != "" {
			return ocitest.Fault{Status: http.StatusTeapot, Body: "a login was sent to the storage"}
		}
		return ocitest.Fault{}
	})
	to := func(base string) *ocitest.Proxy {
		return ocitest.StartProxy(t, registry, func(r *http.Request) ocitest.Fault {
			if ocitest.IsBlob(r) {
				return ocitest.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {base + r.URL.Path}}}
			}
			return ocitest.Fault{}
		})
	}
	login := func(host string) func(*Options) {
		return func(o *Options) { o.DockerConfig = dockerLogin(t, host, "alice", "s3cret") }
	}
	front := to("http://" + storage.Host)
	fetched(t, impatient(t, login(front.Host)), front.Ref("app:1"), layer.Blob)
	if len(storage.BlobRequests()) != 2 {
		t.Errorf("%q", storage.BlobRequests())
	}

	for base, says := range map[string]string{
		"http://storage.test":     "plain HTTP",
		"http://169.254.169.254":  "plain HTTP",
		"https://169.254.169.254": "link-local",
	} {
		front := to(base)
		_, err := impatient(t, login(front.Host)).Fetch(context.Background(), parse(t, front.Ref("app:1")), nil)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", base, err)
		}
	}

	// A registry elsewhere does not send us to what listens here.
	at := func(u string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, here := range []string{"http://127.0.0.1:5000/", "http://localhost/", "http://[::1]:1/"} {
		if err := checkRedirect(at(here), []*http.Request{at("https://registry.test/v2/")}); err == nil {
			t.Errorf("from a registry elsewhere to %s", here)
		}
		if err := checkRedirect(at(here), []*http.Request{at("http://127.0.0.1:5001/v2/")}); err != nil {
			t.Errorf("from a registry here to %s: %v", here, err)
		}
	}
}

func TestMirrors(t *testing.T) {
	t.Parallel()
	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", ocitest.Random(2, 100_000))))
	image := ocitest.Image(t, v1.Config{}, layer)
	origin, mirror, empty := ocitest.Start(t), ocitest.Start(t), ocitest.Start(t)
	origin.Push(t, "library/app:1", image)
	mirror.Push(t, "library/app:1", image)
	mirror.Push(t, "hub/library/app:1", image)
	count := func(r *ocitest.Registry, fault func(*http.Request) ocitest.Fault) *ocitest.Proxy {
		return ocitest.StartProxy(t, r, fault)
	}
	for name, tc := range map[string]struct {
		mirror  *ocitest.Proxy
		prefix  string
		origin  *ocitest.Proxy
		asked   bool // the origin was, for blobs
		mirrors bool // the mirror was, for blobs
	}{
		"the mirror has it":           {count(mirror, pass), "", count(origin, down), false, true},
		"below a prefix":              {count(mirror, pass), "/hub", count(origin, down), false, true},
		"the mirror has it not":       {count(empty, pass), "", count(origin, pass), true, false},
		"the mirror is down":          {count(mirror, down), "", count(origin, pass), true, false},
		"the mirror wants a login":    {count(mirror, status(401)), "", count(origin, pass), true, false},
		"the mirror stalls":           {count(mirror, stalls), "", count(origin, pass), true, false},
		"the mirror has no blobs":     {count(mirror, noBlobs(status(404))), "", count(origin, pass), true, true},
		"the mirror's blobs are bad":  {count(mirror, noBlobs(corrupt)), "", count(origin, pass), true, true},
		"the mirror's blobs stall":    {count(mirror, noBlobs(stalls)), "", count(origin, pass), true, true},
		"the mirror's blobs are down": {count(mirror, noBlobs(down)), "", count(origin, pass), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := impatient(t, func(o *Options) {
				o.Registries = map[string]Registry{tc.origin.Host: {Mirrors: []string{tc.mirror.Host + tc.prefix}}}
				o.Stall = 3 * 1e9
			})
			fetched(t, c, tc.origin.Ref("library/app:1"), layer.Blob)
			if got := len(tc.origin.BlobRequests()) > 0; got != tc.asked {
				t.Errorf("the origin: %q", tc.origin.Requests())
			}
			if got := len(tc.mirror.BlobRequests()) > 0; got != tc.mirrors {
				t.Errorf("the mirror: %q", tc.mirror.Requests())
			}
		})
	}
	// Where nobody has it, the origin's word counts.
	c := impatient(t, func(o *Options) {
		o.Registries = map[string]Registry{origin.Host: {Mirrors: []string{"127.0.0.1:1", empty.Host}}}
	})
	_, err := c.Fetch(context.Background(), parse(t, origin.Ref("library/app:2")), nil)
	wantError(t, err, api.KindNotFound, "", origin.Host+" does not have it")
	// Docker's own registry under all of its names.
	for _, host := range []string{"docker.io", "index.docker.io"} {
		c := impatient(t, func(o *Options) { o.Registries = map[string]Registry{host: {Mirrors: []string{mirror.Host}}} })
		fetched(t, c, "app:1", layer.Blob)
	}
}

func down(*http.Request) ocitest.Fault    { return ocitest.Fault{Status: 503} }
func stalls(*http.Request) ocitest.Fault  { return ocitest.Fault{Stall: -1} }
func corrupt(*http.Request) ocitest.Fault { return ocitest.Fault{Corrupt: true} }
func status(code int) func(*http.Request) ocitest.Fault {
	return func(*http.Request) ocitest.Fault { return ocitest.Fault{Status: code} }
}
func noBlobs(fault func(*http.Request) ocitest.Fault) func(*http.Request) ocitest.Fault {
	return func(r *http.Request) ocitest.Fault {
		if ocitest.IsBlob(r) {
			return fault(r)
		}
		return ocitest.Fault{}
	}
}

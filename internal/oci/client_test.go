package oci

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

func TestFetchFromARegistry(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	base := ocitest.Gzip(ocitest.Tar(t, ocitest.Dir("etc"), ocitest.File("etc/os-release", "ID=test\n")))
	middle := ocitest.Zstd(ocitest.Tar(t, ocitest.File("app", ocitest.Random(1, 300_000))))
	top := ocitest.Plain(ocitest.Tar(t, ocitest.File("top", "x")))
	image := ocitest.Image(t, v1.Config{
		Env: []string{"A=1", "PATH=/bin"}, WorkingDir: "/app", User: "7:8", Entrypoint: []string{"/app"}, Cmd: []string{"serve", "-x"}, Labels: map[string]string{"l": "v"},
	}, base, middle, top)
	digest := registry.Push(t, "team/app:v1", image)

	c := impatient(t, nil)
	var last [2]int64
	got, err := c.Fetch(context.Background(), parse(t, registry.Ref("team/app:v1")), func(done, total int64) { last = [2]int64{done, total} })
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	checkLayers(t, got, base.Blob, middle.Blob, top.Blob)
	config, _ := image.ConfigName()
	diff(t, registry.Ref("team/app:v1"), got.Reference)
	diff(t, []string{digest, digest, config.String(), "linux/amd64"}, []string{got.Digest, got.TargetDigest, got.ConfigDigest, got.Platform})
	diff(t, api.ImageConfig{Env: []string{"A=1", "PATH=/bin"}, Workdir: "/app", User: "7:8", Entrypoint: []string{"/app"}, Cmd: []string{"serve", "-x"}}, got.Config)
	diff(t, map[string]string{"l": "v"}, got.Labels)
	diff(t, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), got.CreatedAt)
	for n, l := range []*ocitest.Layer{base, middle, top} {
		diff(t, []string{ocitest.DigestOf(l.Blob), ocitest.DigestOf(l.Tar), string(l.Kind)}, []string{got.Layers[n].Digest, got.Layers[n].DiffID, got.Layers[n].MediaType})
	}
	if last[0] != last[1] || last[1] < 300_000 {
		t.Errorf("the last report is %d of %d bytes", last[0], last[1])
	}
	resolved, err := c.Resolve(context.Background(), parse(t, registry.Ref("team/app:v1")))
	if err != nil || resolved != digest {
		t.Errorf("resolved %s, %v", resolved, err)
	}
	fetched(t, c, registry.Ref("team/app@"+digest), base.Blob, middle.Blob, top.Blob)
	fetched(t, c, registry.Ref("team/app:v1@"+digest), base.Blob, middle.Blob, top.Blob)
}

func TestAnImageOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	layer := func(s string) *ocitest.Layer { return ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", s))) }
	amd, arm := layer("amd"), layer("arm")
	both := ocitest.Index(t, map[string]v1.Image{
		"linux/amd64": ocitest.Image(t, v1.Config{}, amd), "linux/arm64/v8": ocitest.ImageFor(t, "linux/arm64/v8", v1.Config{}, arm),
	})
	target := registry.PushIndex(t, "multi:1", both)
	registry.PushIndex(t, "multi:foreign", ocitest.Index(t, map[string]v1.Image{
		"linux/arm64/v8": ocitest.ImageFor(t, "linux/arm64/v8", v1.Config{}, arm), "linux/s390x": ocitest.ImageFor(t, "linux/s390x", v1.Config{}, arm),
		"linux/amd64/v3": ocitest.ImageFor(t, "linux/amd64/v3", v1.Config{}, arm), "unknown/unknown": ocitest.Image(t, v1.Config{}, arm),
	}))
	registry.Push(t, "single:arm", ocitest.ImageFor(t, "linux/arm64", v1.Config{}, arm))

	got := fetched(t, impatient(t, nil), registry.Ref("multi:1"), amd.Blob)
	if got.TargetDigest != target || got.Digest == target || got.Platform != "linux/amd64" {
		t.Errorf("%+v", got)
	}
	got = fetched(t, impatient(t, func(o *Options) { o.Platform = "linux/arm64" }), registry.Ref("multi:1"), arm.Blob)
	if got.TargetDigest != target {
		t.Errorf("%+v", got)
	}
	c := impatient(t, nil)
	_, err := c.Fetch(context.Background(), parse(t, registry.Ref("multi:foreign")), nil)
	wantError(t, err, api.KindUnsupported, "", "linux/amd64, only for", "linux/arm64/v8", "linux/s390x", "linux/amd64/v3")
	if strings.Contains(err.Error(), "unknown") || len(api.AsError(err).Candidates) != 3 {
		t.Error(err)
	}
	_, err = c.Fetch(context.Background(), parse(t, registry.Ref("single:arm")), nil)
	wantError(t, err, api.KindUnsupported, "", "it is for linux/arm64, and this host runs linux/amd64")
	if list, _ := c.opt.Blobs.List(); len(list) != 1 {
		t.Errorf("layers of an image for another platform were fetched: %+v", list)
	}
}

func TestLayersAreSharedAndNotFetchedAgain(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	proxy := ocitest.StartProxy(t, registry, pass)
	base := ocitest.Gzip(ocitest.Tar(t, ocitest.File("base", ocitest.Random(1, 200_000))))
	own := ocitest.Gzip(ocitest.Tar(t, ocitest.File("own", "2")))
	registry.Push(t, "a:1", ocitest.Image(t, v1.Config{}, base))
	registry.Push(t, "b:1", ocitest.Image(t, v1.Config{}, base, own, base))
	c := impatient(t, nil)
	fetched(t, c, proxy.Ref("a:1"), base.Blob)
	fetched(t, c, proxy.Ref("b:1"), base.Blob, own.Blob, base.Blob)
	fetched(t, c, proxy.Ref("b:1"), base.Blob, own.Blob, base.Blob)
	if n := len(proxy.BlobRequests()); n != 4 { // two configurations, base, own
		t.Errorf("%d: %q", n, proxy.BlobRequests())
	}
}

func TestTLSWithAPrivateCA(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t, ocitest.WithTLS())
	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", "tls")))
	registry.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	with := func(r Registry) *Client {
		return impatient(t, func(o *Options) { o.Registries = map[string]Registry{registry.Host: r} })
	}
	fetched(t, with(Registry{CA: registry.CA}), registry.Ref("app:1"), layer.Blob)

	_, err := impatient(t, nil).Fetch(context.Background(), parse(t, registry.Ref("app:1")), nil)
	wantError(t, err, api.KindUnavailable, "banger config show", "certificate", registry.Host, `registries."`+registry.Host+`".ca`)
	_, err = with(Registry{CA: filepath.Join(t.TempDir(), "none.pem")}).Fetch(context.Background(), parse(t, registry.Ref("app:1")), nil)
	wantError(t, err, api.KindInvalid, "banger config show", "none.pem", "registries.")
	_, err = with(Registry{CA: registry.BlobFile(ocitest.DigestOf(layer.Blob))}).Fetch(context.Background(), parse(t, registry.Ref("app:1")), nil)
	wantError(t, err, api.KindInvalid, "banger config show", "no certificate in PEM form")
	_, err = with(Registry{PlainHTTP: true}).Fetch(context.Background(), parse(t, registry.Ref("app:1")), nil)
	wantError(t, err, api.KindUnavailable, "banger config show", registry.Host+" speaks TLS", "plain_http")
}

func TestWhatIsNotThere(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", "1")))
	registry.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	c := impatient(t, nil)
	for _, ref := range []string{"app:2", "none:1", "app@" + ocitest.DigestOf(nil)} {
		_, err := c.Fetch(context.Background(), parse(t, registry.Ref(ref)), nil)
		wantError(t, err, api.KindNotFound, "curl -s http://"+registry.Host+"/v2/", "cannot pull "+registry.Ref(ref), registry.Host+" does not have it", "unknown")
		_, err = c.Resolve(context.Background(), parse(t, registry.Ref(ref)))
		wantError(t, err, api.KindNotFound, "", registry.Ref(ref))
	}
	_, err := c.Fetch(context.Background(), parse(t, "127.0.0.1:1/app:1"), nil)
	wantError(t, err, api.KindUnavailable, "curl -sSI http://127.0.0.1:1/v2/", "127.0.0.1:1 cannot be reached", "connection refused")
	_, err = c.Fetch(context.Background(), parse(t, "registry.invalid/app:1"), nil)
	wantError(t, err, api.KindUnavailable, "", "registry.invalid")
}

func pass(*http.Request) ocitest.Fault { return ocitest.Fault{} }

// Two keys that mean one registry: neither may win by chance.
func TestTwoKeysForOneRegistry(t *testing.T) {
	t.Parallel()
	for range 20 { // whatever order the map has
		_, err := New(Options{Blobs: OpenBlobs(t.TempDir()), Registries: map[string]Registry{
			"docker.io": {CA: "/a"}, "registry-1.docker.io": {PlainHTTP: true}, "other.example": {},
		}})
		wantError(t, err, api.KindInvalid, "banger config show", `registries."docker.io" and registries."registry-1.docker.io" both mean docker.io`)
	}
	if _, err := New(Options{Blobs: OpenBlobs(t.TempDir()), Registries: map[string]Registry{"index.docker.io": {}, "other.example": {}}}); err != nil {
		t.Error(err)
	}
}

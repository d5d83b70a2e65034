package oci

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

// faulty gives a registry with one image, app:1 of one large layer, behind a
// proxy that does what fault says to the n-th request for the layer, from 1.
func faulty(t *testing.T, fault func(n int64, r *http.Request) ocitest.Fault) (*ocitest.Proxy, *ocitest.Layer) {
	t.Helper()
	registry := ocitest.Start(t)
	layer := ocitest.Plain(ocitest.Tar(t, ocitest.File("f", ocitest.Random(1, 1<<20))))
	registry.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	digest := ocitest.DigestOf(layer.Blob)
	var n atomic.Int64
	return ocitest.StartProxy(t, registry, func(r *http.Request) ocitest.Fault {
		if !strings.HasSuffix(r.URL.Path, digest) {
			return ocitest.Fault{}
		}
		return fault(n.Add(1), r)
	}), layer
}

// layerRequests are the ranges in which the layer was asked for.
func layerRequests(p *ocitest.Proxy, l *ocitest.Layer) []string {
	var ranges []string
	for _, r := range p.BlobRequests() {
		if _, after, ok := strings.Cut(r, ocitest.DigestOf(l.Blob)); ok {
			ranges = append(ranges, strings.TrimSpace(after))
		}
	}
	return ranges
}

func TestADownloadGoesOnWhereItBrokeOff(t *testing.T) {
	t.Parallel()
	const quarter = 256 << 10
	for name, tc := range map[string]struct {
		first Fault // on the first request; what follows is whole
		then  Fault // on every later one
		stall time.Duration
		want  []string // the ranges asked for
	}{
		"cut":                         {first: Fault{Cut: quarter}, want: []string{"", "bytes=262144-"}},
		"cut before the first byte":   {first: Fault{Cut: -1}, want: []string{"", ""}},
		"stalled":                     {first: Fault{Stall: quarter}, stall: time.Second, want: []string{"", "bytes=262144-"}},
		"stalled before the header":   {first: Fault{Stall: -1}, stall: time.Second, want: []string{"", ""}},
		"a server without ranges":     {first: Fault{Cut: quarter}, then: Fault{NoRange: true}, want: []string{"", "bytes=262144-"}},
		"a server with wrong ranges":  {first: Fault{Cut: quarter}, then: Fault{Shift: true}, want: []string{"", "bytes=262144-", ""}},
		"a server that knows no more": {first: Fault{Cut: quarter}, then: Fault{Status: http.StatusRequestedRangeNotSatisfiable}, want: nil},
		"damaged on the way":          {first: Fault{Corrupt: true}, want: []string{"", ""}},
		"longer than it should be":    {first: Fault{Longer: true}, want: []string{"", ""}},
		"an error of the server":      {first: Fault{Status: http.StatusBadGateway, Body: "<html>"}, want: []string{"", ""}},
		"too many requests":           {first: Fault{Status: http.StatusTooManyRequests}, want: []string{"", ""}},
		"slow":                        {first: Fault{Slow: 20 * time.Millisecond}, stall: time.Second, want: []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy, layer := faulty(t, func(n int64, r *http.Request) ocitest.Fault {
				if n == 1 {
					return ocitest.Fault(tc.first)
				}
				if tc.then.Status != 0 && r.Header.Get("Range") == "" {
					return ocitest.Fault{}
				}
				return ocitest.Fault(tc.then)
			})
			c := impatient(t, func(o *Options) {
				if tc.stall > 0 {
					o.Stall = tc.stall
				}
			})
			fetched(t, c, proxy.Ref("app:1"), layer.Blob)
			if tc.want != nil {
				diff(t, tc.want, layerRequests(proxy, layer))
			}
			list, err := c.opt.Blobs.List()
			if err != nil || len(list) != 2 || list[0].Partial || list[1].Partial {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
}

// Fault is short for the table.
type Fault = ocitest.Fault

// What comes beyond the size that was said fills no disk: the connection is closed.
func TestADownloadThatNeverEnds(t *testing.T) {
	t.Parallel()
	proxy, layer := faulty(t, func(int64, *http.Request) ocitest.Fault { return Fault{Endless: true} })
	_, err := impatient(t, func(*Options) {}).Fetch(context.Background(), parse(t, proxy.Ref("app:1")), nil)
	wantError(t, err, api.KindUnavailable, "", "sent damaged data", "layer "+ocitest.DigestOf(layer.Blob))
	if n := proxy.BodyBytes(); n > 64<<20 { // some wait in the sockets
		t.Errorf("it took %d bytes of a layer of %d", n, len(layer.Blob))
	}
}

func TestADownloadThatCannotBeDone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault    Fault
		kind     api.Kind
		says     []string
		requests int
		leaves   int // files in the cache
	}{
		"always damaged": {Fault{Corrupt: true}, api.KindUnavailable, []string{"sent damaged data: expected sha256:", "but sha256:", "came"}, 2, 2},
		"always cut":     {Fault{Cut: 1000}, api.KindUnavailable, []string{"broke the connection off", "EOF"}, 4, 2},
		"always stalled": {Fault{Stall: 1000}, api.KindUnavailable, []string{"stalled: nothing came for 1s"}, 4, 2},
		"always down":    {Fault{Status: 503}, api.KindUnavailable, []string{"answers Service Unavailable"}, 4, 2},
		"gone":           {Fault{Status: 404, Body: `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown\u001b[2J"}]}`}, api.KindNotFound, []string{"does not have it: blob unknown: blob unknown [2J"}, 1, 2},
		"not for us":     {Fault{Status: 403, Body: "no"}, api.KindDenied, []string{"wants a login"}, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy, layer := faulty(t, func(int64, *http.Request) ocitest.Fault { return tc.fault })
			c := impatient(t, func(o *Options) { o.Stall = time.Second })
			_, err := c.Fetch(context.Background(), parse(t, proxy.Ref("app:1")), nil)
			wantError(t, err, tc.kind, "", append(tc.says, proxy.Ref("app:1"), "layer "+ocitest.DigestOf(layer.Blob), proxy.Host)...)
			if n := len(layerRequests(proxy, layer)); n != tc.requests {
				t.Errorf("%d requests, want %d", n, tc.requests)
			}
			if gone, err := c.opt.Blobs.Prune(nil, false); err != nil || len(gone) != tc.leaves {
				t.Errorf("pruned %+v, %v", gone, err)
			}
		})
	}
}

func TestADownloadGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	proxy, layer := faulty(t, func(n int64, _ *http.Request) ocitest.Fault {
		if n == 1 {
			return ocitest.Fault{Stall: 512 << 10}
		}
		return ocitest.Fault{}
	})
	dir := filepath.Join(t.TempDir(), "blobs")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first := impatient(t, func(o *Options) { o.Blobs = OpenBlobs(dir) })
	_, err := first.Fetch(ctx, parse(t, proxy.Ref("app:1")), func(done, _ int64) {
		if done >= 512<<10 {
			cancel() // as a daemon that is stopped
		}
	})
	wantError(t, err, api.KindCancelled, "", "cannot pull "+proxy.Ref("app:1"))
	second := impatient(t, func(o *Options) { o.Blobs = OpenBlobs(dir) })
	fetched(t, second, proxy.Ref("app:1"), layer.Blob)
	diff(t, []string{"", "bytes=524288-"}, layerRequests(proxy, layer))
}

// What lies in the cache as a part may be anything.
func TestARottenPartIsBegunAnew(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]func(blob []byte) []byte{
		"other bytes":    func([]byte) []byte { return []byte("something else") },
		"too long":       func(b []byte) []byte { return append(append([]byte{}, b...), 1) },
		"whole":          func(b []byte) []byte { return b },
		"whole and bad":  func(b []byte) []byte { return make([]byte, len(b)) },
		"empty":          func([]byte) []byte { return nil },
		"the right part": func(b []byte) []byte { return b[:1000] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy, layer := faulty(t, func(int64, *http.Request) ocitest.Fault { return ocitest.Fault{} })
			c := impatient(t, nil)
			path := c.opt.Blobs.partial(ocitest.DigestOf(layer.Blob))
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, part(layer.Blob), 0o600); err != nil {
				t.Fatal(err)
			}
			fetched(t, c, proxy.Ref("app:1"), layer.Blob)
			if n := len(layerRequests(proxy, layer)); name == "whole" && n != 0 || n > 2 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestTwoFetchesShareOneDownload(t *testing.T) {
	t.Parallel()
	held, release := make(chan struct{}), make(chan struct{})
	proxy, layer := faulty(t, func(n int64, _ *http.Request) ocitest.Fault {
		if n == 1 {
			close(held)
		}
		<-release
		return ocitest.Fault{}
	})
	c := impatient(t, nil)
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() { fetchOnly(t, c, proxy.Ref("app:1"), layer.Blob) })
	}
	<-held
	for c.waiting(ocitest.DigestOf(layer.Blob)) < 5 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	group.Wait()
	if n := len(layerRequests(proxy, layer)); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// waiting is how many wait for a blob.
func (c *Client) waiting(digest string) int {
	c.opt.Blobs.mu.Lock()
	f := c.opt.Blobs.flights[digest]
	c.opt.Blobs.mu.Unlock()
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiters)
}

func fetchOnly(t *testing.T, c *Client, ref string, layers ...[]byte) {
	image, err := c.Fetch(context.Background(), parse(t, ref), nil)
	if err != nil {
		t.Error(err)
		return
	}
	defer image.Close()
	for n, l := range layers {
		r, err := image.Layers[n].Open()
		if err != nil {
			t.Error(err)
			continue
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != string(l) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		_ = r.Close()
	}
}

// One of those who share a download goes; the others get it all the same.
func TestOneWhoLeavesDoesNotEndTheDownload(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	proxy, layer := faulty(t, func(int64, *http.Request) ocitest.Fault {
		<-release
		return ocitest.Fault{}
	})
	c := impatient(t, nil)
	digest := ocitest.DigestOf(layer.Blob)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() {
		_, err := c.Fetch(ctx, parse(t, proxy.Ref("app:1")), nil)
		gone <- err
	}()
	for c.waiting(digest) < 1 {
		time.Sleep(time.Millisecond)
	}
	stays := make(chan struct{})
	go func() {
		defer close(stays)
		fetchOnly(t, c, proxy.Ref("app:1"), layer.Blob)
	}()
	for c.waiting(digest) < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-gone; err == nil {
		t.Error("it was cancelled")
	}
	close(release)
	<-stays
	if n := len(layerRequests(proxy, layer)); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// A registry that stalls for ever holds nobody who can have the same blob from
// another one.
func TestAStalledRegistryHoldsNobodyElse(t *testing.T) {
	t.Parallel()
	stalled, layer := faulty(t, func(int64, *http.Request) ocitest.Fault { return ocitest.Fault{Stall: 1000} })
	good, _ := faulty(t, func(int64, *http.Request) ocitest.Fault { return ocitest.Fault{} })
	c := impatient(t, func(o *Options) { o.Stall = 10 * time.Second })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	held := make(chan error, 1)
	go func() {
		image, err := c.Fetch(ctx, parse(t, stalled.Ref("app:1")), nil)
		if err == nil {
			image.Close()
		}
		held <- err
	}()
	for c.waiting(ocitest.DigestOf(layer.Blob)) < 1 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	fetched(t, c, good.Ref("app:1"), layer.Blob)
	if took := time.Since(begin); took > 9*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := <-held; err != nil {
		t.Errorf("the first one had it from the second's registry too: %v", err)
	}
}

func TestSizesThatFitNoDisk(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	image := ocitest.Image(t, v1.Config{}, ocitest.Plain(ocitest.Tar(t, ocitest.File("f", "1"))))
	registry.Push(t, "app:1", image)
	manifest, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"1152921504606846976", "9223372036854775807"} {
		body := strings.Replace(string(manifest), fmt.Sprintf(`"size":%d,"digest":"%s"`, m.Layers[0].Size, m.Layers[0].Digest), fmt.Sprintf(`"size":%s,"digest":"%s"`, size, m.Layers[0].Digest), 1)
		if body == string(manifest) {
			t.Fatal(body)
		}
		registry.PushManifest(t, "app:huge", string(m.MediaType), body)
		_, err = impatient(t, nil).Fetch(context.Background(), parse(t, registry.Ref("app:huge")), nil)
		wantError(t, err, api.KindNoSpace, "df -h", "cannot pull "+registry.Ref("app:huge"), "EiB", "free")
	}
}

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layers/gunzip"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

func TestPruningTheCache(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	a, b := ocitest.Plain(ocitest.Tar(t, ocitest.File("a", "1"))), ocitest.Plain(ocitest.Tar(t, ocitest.File("b", "22")))
	registry.Push(t, "a:1", ocitest.Image(t, v1.Config{}, a))
	registry.Push(t, "b:1", ocitest.Image(t, v1.Config{}, b))
	c := impatient(t, nil)
	blobs := c.opt.Blobs
	if list, err := blobs.List(); err != nil || len(list) != 0 {
		t.Errorf("a cache that is not there: %+v, %v", list, err)
	}
	image := fetched(t, c, registry.Ref("a:1"), a.Blob)
	fetchOnly(t, c, registry.Ref("b:1"), b.Blob)
	// A part of something, and what is none of ours.
	part := blobs.partial("sha256:" + strings.Repeat("c", 64))
	for path, text := range map[string]string{part: "part", filepath.Join(blobs.dir, "sha256", "README"): "x", filepath.Join(blobs.dir, "note"): "x"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := blobs.List()
	if err != nil || len(list) != 5 {
		t.Fatalf("%+v, %v", list, err)
	}
	var sum int64
	for _, i := range list {
		sum += i.Size
		if i.Partial != (i.Digest == "sha256:"+strings.Repeat("c", 64)) {
			t.Errorf("%+v", i)
		}
	}
	if sum < int64(len(a.Blob)+len(b.Blob)) {
		t.Errorf("%d bytes", sum)
	}

	keep := map[string]bool{ocitest.DigestOf(b.Blob): true}
	for _, dry := range []bool{true, false} {
		gone, err := blobs.Prune(keep, dry)
		if err != nil || len(gone) != 2 { // b's configuration, the part
			t.Errorf("%+v, %v", gone, err)
		}
	}
	if list, _ := blobs.List(); len(list) != 3 {
		t.Errorf("%+v", list)
	}
	checkLayers(t, image, a.Blob) // still open, so still there
	image.Close()
	image.Close() // twice is once
	if gone, err := blobs.Prune(keep, false); err != nil || len(gone) != 2 {
		t.Errorf("%+v, %v", gone, err)
	}
	_, err = image.Layers[0].Open()
	wantError(t, err, api.KindBadState, "", "not in the blob cache any more")
	if list, _ := blobs.List(); len(list) != 1 || list[0].Digest != ocitest.DigestOf(b.Blob) {
		t.Errorf("%+v", list)
	}
	fetched(t, c, registry.Ref("a:1"), a.Blob)
}

// Pruning in the middle of a download takes nothing from it.
func TestPruningSparesADownload(t *testing.T) {
	t.Parallel()
	held, release := make(chan struct{}), make(chan struct{})
	proxy, layer := faulty(t, func(n int64, _ *http.Request) ocitest.Fault {
		switch n {
		case 1:
			return ocitest.Fault{Cut: 256 << 10}
		case 2:
			close(held)
			<-release
		}
		return ocitest.Fault{}
	})
	c := impatient(t, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		fetchOnly(t, c, proxy.Ref("app:1"), layer.Blob)
	}()
	<-held
	if gone, err := c.opt.Blobs.Prune(nil, false); err != nil || len(gone) != 0 {
		t.Errorf("%+v, %v", gone, err)
	}
	close(release)
	<-done
	diff(t, []string{"", "bytes=262144-"}, layerRequests(proxy, layer))
}

func TestABlobThatRotsOnTheDisk(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	layer := ocitest.Plain(ocitest.Tar(t, ocitest.File("f", ocitest.Random(3, 50_000))))
	registry.Push(t, "app:1", ocitest.Image(t, v1.Config{}, layer))
	for name, rot := range map[string]func(b []byte) []byte{
		"a bit":  func(b []byte) []byte { b[1000] ^= 1; return b },
		"short":  func(b []byte) []byte { return b[:1000] },
		"long":   func(b []byte) []byte { return append(b, 0) },
		"nought": func([]byte) []byte { return nil },
	} {
		c := impatient(t, nil)
		image := fetched(t, c, registry.Ref("app:1"), layer.Blob)
		path := c.opt.Blobs.path(image.Layers[0].Digest)
		image.Layers[0].Unpacked([]gunzip.Point{{Out: 1}})
		if err := os.WriteFile(path, rot(append([]byte{}, layer.Blob...)), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := image.Layers[0].Open()
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(r)
		_ = r.Close()
		wantError(t, err, api.KindUnavailable, "", "damaged on the disk", image.Layers[0].Digest)
		if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
			t.Errorf("%s: left: %v", name, left)
		}
		fetched(t, c, registry.Ref("app:1"), layer.Blob)
	}
}

// What registries and archives may say about an image is bounded.
func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	image := ocitest.Image(t, v1.Config{}, ocitest.Plain(ocitest.Tar(t, ocitest.File("f", "1"))))
	registry.Push(t, "app:1", image)
	good, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	d := "sha256:" + strings.Repeat("a", 64)
	with := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("%s holds no %s", good, old)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	config := func(mediaType string, size int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`, mediaType, d, size)
	}
	const oci, ociIndex = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	const plain = "application/vnd.oci.image.layer.v1.tar"
	for name, tc := range map[string]struct {
		mediaType, body string
		kind            api.Kind
		says            string
	}{
		"schema 1":              {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, api.KindUnsupported, "old schema 1"},
		"an artifact":           {oci, config("application/vnd.cncf.helm.config.v1+json", 1), api.KindUnsupported, `artifact of type "application/vnd.cncf.helm.config.v1+json"`},
		"an empty artifact":     {oci, config("application/vnd.oci.empty.v1+json", 2), api.KindUnsupported, "no image"},
		"a foreign layer":       {oci, with(plain, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), api.KindUnsupported, "foreign"},
		"an encrypted layer":    {oci, with(plain, plain+"+encrypted"), api.KindUnsupported, "cannot be unpacked here"},
		"a huge configuration":  {oci, config("application/vnd.oci.image.config.v1+json", 5<<20), api.KindInvalid, "configuration has"},
		"a negative size":       {oci, config("application/vnd.oci.image.config.v1+json", -1), api.KindInvalid, "negative"},
		"a digest that is none": {oci, strings.ReplaceAll(config("application/vnd.oci.image.config.v1+json", 1), d, "sha256:../x"), api.KindInvalid, "manifest cannot be read"},
		"too many layers":       {oci, with(`"layers":[`, `"layers":[`+strings.Repeat(`{"mediaType":"`+plain+`","digest":"`+d+`","size":1},`, 600)), api.KindInvalid, "layers, more than 512"},
		"both at once":          {oci, with(`"layers":[`, `"manifests":[],"layers":[`), api.KindInvalid, "at once"},
		"another type":          {"application/json", `{}`, api.KindUnsupported, "no image"},
		"a web page":            {"text/html", "<html>", api.KindInvalid, "cannot be read"},
		"5 MiB":                 {oci, strings.Repeat(" ", 5<<20), api.KindInvalid, "its manifest is larger than"},
		"an empty index":        {ociIndex, `{"schemaVersion":2,"manifests":[]}`, api.KindUnsupported, "lists no image"},
		"too long an index":     {ociIndex, `{"manifests":[` + strings.Repeat(`{"digest":"`+d+`"},`, 1024) + `{"digest":"` + d + `"}]}`, api.KindInvalid, "lists 1025"},
		"too few layers":        {oci, with(`"layers":[`, `"layers":[],"x":[`), api.KindInvalid, "0 layers, its configuration says 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := ocitest.StartProxy(t, registry, func(r *http.Request) ocitest.Fault {
				if strings.Contains(r.URL.Path, "/manifests/") {
					return ocitest.Fault{Status: http.StatusOK, Body: tc.body, Header: http.Header{"Content-Type": {tc.mediaType}}}
				}
				return ocitest.Fault{}
			})
			_, err := impatient(t, nil).Fetch(context.Background(), parse(t, proxy.Ref("app:1")), nil)
			wantError(t, err, tc.kind, "", tc.says, "cannot pull "+proxy.Ref("app:1"))
		})
	}
	// What is asked for by its digest must have it.
	proxy := ocitest.StartProxy(t, registry, func(r *http.Request) ocitest.Fault {
		if strings.Contains(r.URL.Path, "/manifests/") {
			return ocitest.Fault{Status: http.StatusOK, Body: string(good) + " ", Header: http.Header{"Content-Type": {oci}}}
		}
		return ocitest.Fault{}
	})
	_, err = impatient(t, nil).Fetch(context.Background(), parse(t, proxy.Ref("app@"+ocitest.DigestOf(good))), nil)
	wantError(t, err, api.KindUnavailable, "", "damaged data: expected "+ocitest.DigestOf(good)+", but sha256:")
}

// A registry without HEAD, or that answers it badly, is asked otherwise.
func TestResolveWithoutHEAD(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	digest := registry.Push(t, "app:1", ocitest.Image(t, v1.Config{}, ocitest.Plain(ocitest.Tar(t, ocitest.File("f", "1")))))
	for name, fault := range map[string]ocitest.Fault{
		"not allowed": {Status: http.StatusMethodNotAllowed},
		"no digest":   {Status: http.StatusOK},
		"odd digest":  {Status: http.StatusOK, Header: http.Header{"Docker-Content-Digest": {"md5:x"}}},
	} {
		proxy := ocitest.StartProxy(t, registry, func(r *http.Request) ocitest.Fault {
			if r.Method == http.MethodHead {
				return fault
			}
			return ocitest.Fault{}
		})
		got, err := impatient(t, nil).Resolve(context.Background(), parse(t, proxy.Ref("app:1")))
		if err != nil || got != digest {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestCancelledWhileARegistryStalls(t *testing.T) {
	t.Parallel()
	proxy := ocitest.StartProxy(t, ocitest.Start(t), stalls)
	c := impatient(t, func(o *Options) { o.Stall = time.Hour })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() {
		_, err := c.Fetch(ctx, parse(t, proxy.Ref("app:1")), nil)
		ended <- err
	}()
	go func() {
		_, err := c.Resolve(ctx, parse(t, proxy.Ref("app:1")))
		ended <- err
	}()
	for len(proxy.Requests()) < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	for range 2 {
		wantError(t, <-ended, api.KindCancelled, "", "cannot pull "+proxy.Ref("app:1"))
	}
}

// What a layer unpacks to is known as long as its blob is here, for its own diff
// id alone, and to whoever opens the cache next.
func TestWhatALayerUnpacksToIsKnown(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	l := ocitest.Gzip(ocitest.Tar(t, ocitest.File("a", "1")))
	registry.Push(t, "a:1", ocitest.Image(t, v1.Config{}, l))
	c := impatient(t, nil)
	known := func() bool {
		image := fetched(t, c, registry.Ref("a:1"), l.Blob)
		defer image.Close()
		if p := image.Layers[0].Points; image.Layers[0].Known != (len(p) == 1 && string(p[0].Window) == "5") {
			t.Errorf("known: %v, its points %+v", image.Layers[0].Known, p)
		}
		return image.Layers[0].Known
	}
	if known() {
		t.Error("it is known before anybody looked")
	}
	image := fetched(t, c, registry.Ref("a:1"), l.Blob)
	image.Layers[0].Unpacked([]gunzip.Point{{In: 3, Out: 4, Window: []byte("5")}})
	if !known() {
		t.Error("it is forgotten")
	}
	digest := image.Layers[0].Digest
	again := OpenBlobs(c.opt.Blobs.dir)
	for id, want := range map[string]bool{image.Layers[0].DiffID: true, digest: false, "": false} {
		if got, _ := again.known(digest, id); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
	// Points that are damaged, or of another time, are not taken.
	if err := os.WriteFile(again.pointsOf(digest), []byte(`[{"in":1,"out":2,"window":"Ng=="}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, points := again.known(digest, image.Layers[0].DiffID); !ok || points != nil {
		t.Errorf("known: %v, with points of another digest: %+v", ok, points)
	}
	// All bytes are right, but a part was not: what was kept is wrong.
	again.note(digest, image.Layers[0].DiffID, []gunzip.Point{{Out: 1}})
	if err := image.Layers[0].Check(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(again.pointsOf(digest)); known() || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is not forgotten: %v", err)
	}
	again.note(digest, image.Layers[0].DiffID, []gunzip.Point{{Out: 1}})
	image.Close()
	if _, err := c.opt.Blobs.Prune(nil, false); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(again.dir, "*", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if known() {
		t.Error("it is known of a blob that came anew")
	}
}

// What is known of a layer takes memory once, and of all layers only so much.
func TestWhatIsKnownIsBounded(t *testing.T) {
	t.Parallel()
	b := OpenBlobs(t.TempDir())
	var layers []Layer
	var blobs []blob
	for i := range 10 {
		digest := digestOf([]byte{byte(i)})
		for _, err := range []error{os.MkdirAll(filepath.Dir(b.path(digest)), 0o700), os.WriteFile(b.path(digest), nil, 0o600)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		b.note(digest, "sha256:x", make([]gunzip.Point, manyPoints/8))
		for range 2 {
			layers, blobs = append(layers, Layer{Digest: digest, DiffID: "sha256:x"}), append(blobs, blob{digest: digest})
		}
	}
	if err := b.recall(t.Context(), layers, blobs); err != nil {
		t.Fatal(err)
	}
	all := map[*gunzip.Point]bool{}
	for n, l := range layers {
		if !l.Known || (len(l.Points) > 0) != (n < 8) {
			t.Errorf("layer %d is known: %v, with %d points", n, l.Known, len(l.Points))
		}
		if len(l.Points) > 0 {
			all[&l.Points[0]] = true
		}
	}
	if len(all) != 4 {
		t.Errorf("%d lists of points for 4 layers", len(all))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.recall(ctx, layers, blobs); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

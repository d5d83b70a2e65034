package oci

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/bangervm/banger/api"
)

// Options are a client's settings.
type Options struct {
	Blobs *Blobs
	// Registries by host, as the configuration has them.
	Registries map[string]Registry
	// DockerConfig is the folder of Docker's config.json; empty: no logins.
	DockerConfig string
	// Platform is what images must be for; empty: this host's, linux/amd64.
	Platform  string
	UserAgent string
	Log       *slog.Logger

	// Proxy as in http.Transport; nil: from the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// Stall is how long a connection may give nothing; zero: 30 s.
	Stall time.Duration
	// Backoff is the wait after so many failures in a row; nil: 0.5 s, doubling.
	Backoff func(failures int) time.Duration
	// Tries is how many failures in a row, without progress, are the end; zero: 6.
	Tries int
	// Parallel is how many blobs of an image are fetched at once; zero: 4.
	Parallel int
}

// Client talks to registries. Its methods may be called from several goroutines;
// fetches of different images never wait for each other.
type Client struct {
	opt      Options
	platform v1.Platform
}

// New makes a client.
func New(opt Options) (*Client, error) {
	if opt.Platform == "" {
		opt.Platform = hostPlatform()
	}
	platform, err := v1.ParsePlatform(opt.Platform)
	if err != nil || platform.OS == "" || platform.Architecture == "" {
		return nil, api.Errorf(api.KindInvalid, "cannot use platform %q: it is not like linux/amd64", clip(opt.Platform))
	}
	if opt.Proxy == nil {
		opt.Proxy = http.ProxyFromEnvironment
	}
	if opt.Stall == 0 {
		opt.Stall = 30 * time.Second
	}
	if opt.Backoff == nil {
		opt.Backoff = func(failures int) time.Duration { return 250 * time.Millisecond << min(failures, 6) }
	}
	if opt.Tries == 0 {
		opt.Tries = 6
	}
	if opt.Parallel == 0 {
		opt.Parallel = 4
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Registries, err = byCanonicalHost(opt.Registries); err != nil {
		return nil, err
	}
	return &Client{opt: opt, platform: *platform}, nil
}

// byCanonicalHost gives the settings under the one name each registry has here.
// Two keys for one registry are refused: neither has a right to win.
func byCanonicalHost(configured map[string]Registry) (map[string]Registry, error) {
	canonical, key := map[string]Registry{}, map[string]string{}
	for _, host := range slices.Sorted(maps.Keys(configured)) {
		c := canonicalHost(host)
		if first, twice := key[c]; twice {
			return nil, api.Errorf(api.KindInvalid, "cannot use the configuration: registries.%q and registries.%q both mean %s; keep one of them", first, host, c).
				WithHint("banger config show")
		}
		canonical[c], key[c] = configured[host], host
	}
	return canonical, nil
}

// Report is told how many bytes of an image's blobs are here, of how many. It is
// called by one goroutine at a time.
type Report func(done, total int64)

// Resolve gives the digest that a reference points to now, without fetching
// anything: Image.TargetDigest of what Fetch would give.
func (c *Client) Resolve(ctx context.Context, ref Reference) (string, error) {
	var digest string
	places, err := c.each(ctx, ref, func(e *endpoint) (err error) {
		if digest, err = e.head(ctx, ref.identifier()); err == nil && digest == "" {
			var got received
			got, err = e.manifest(ctx, ref.identifier())
			digest = got.digest
		}
		return err
	})
	closeAll(places)
	return digest, ended(ctx, "pull "+ref.String(), err)
}

// Fetch brings an image's blobs into the cache and gives the image. The caller
// closes it. report may be nil.
func (c *Client) Fetch(ctx context.Context, ref Reference, report Report) (*Image, error) {
	what := "pull " + ref.String()
	image, err := c.fetch(ctx, what, ref, report)
	return image, ended(ctx, what, err)
}

// ended gives an error its kind where it is the context's end.
func ended(ctx context.Context, what string, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot %s: %w", what, context.Cause(ctx))
	}
	return api.Errorf(api.KindCancelled, "cannot %s: %w", what, context.Cause(ctx))
}

func (c *Client) fetch(ctx context.Context, what string, ref Reference, report Report) (*Image, error) {
	var target received
	places, err := c.each(ctx, ref, func(e *endpoint) (err error) {
		target, err = e.manifest(ctx, ref.identifier())
		return err
	})
	if err != nil {
		return nil, err
	}
	defer closeAll(places)
	wrong := func(err error) error { return contentError(what, err) }
	doc, err := parseDocument(target.body, target.mediaType)
	if err != nil {
		return nil, wrong(err)
	}
	got := target
	if doc.index != nil {
		d, err := choose(doc.index, c.platform)
		if err != nil {
			return nil, wrong(err)
		}
		if err := c.first(ctx, what, places, func(e *endpoint) (err error) {
			got, err = e.manifest(ctx, d.Digest.String())
			return err
		}); err != nil {
			return nil, err
		}
		if doc, err = parseDocument(got.body, string(d.MediaType)); err != nil {
			return nil, wrong(err)
		}
		if doc.manifest == nil {
			return nil, wrong(api.Errorf(api.KindUnsupported, "its index leads to another index"))
		}
	}
	image := &Image{Reference: ref.String(), Digest: got.digest, TargetDigest: target.digest, ConfigDigest: doc.manifest.Config.Digest.String()}
	if err := c.blobs(ctx, what, image, doc.manifest, places, report); err != nil {
		image.Close()
		return nil, err
	}
	return image, nil
}

// blobs fetches what a manifest lists and fills the image in.
func (c *Client) blobs(ctx context.Context, what string, image *Image, m *v1.Manifest, places []*endpoint, report Report) error {
	config := blob{digest: image.ConfigDigest, size: m.Config.Size, what: "configuration"}
	all, digests := []blob{config}, []string{config.digest}
	for _, l := range m.Layers {
		bl := blob{digest: l.Digest.String(), size: l.Size, what: "layer"}
		mediaType, err := layerType(l)
		if err != nil {
			return contentError(what, err)
		}
		image.Layers = append(image.Layers, Layer{
			Digest: bl.digest, MediaType: mediaType, Size: bl.size, Open: c.opener(bl),
		})
		all, digests = append(all, bl), append(digests, bl.digest)
	}
	image.release = c.opt.Blobs.pin(digests...)
	if err := c.opt.Blobs.checkSpace(what, all); err != nil {
		return err
	}
	sources := make([]source, 0, len(places))
	for _, e := range places {
		sources = append(sources, &blobSource{endpoint: e, what: what})
	}
	// The configuration first: it may say that the rest is not wanted.
	progress := newProgress(all, report)
	if err := c.opt.Blobs.get(ctx, config, sources, c.patience(), progress.of(0)); err != nil {
		return err
	}
	b, err := c.opt.Blobs.read(config)
	if err != nil {
		return err
	}
	parsed, err := parseConfig(b)
	if err == nil {
		err = image.setConfig(parsed, c.platform)
	}
	if err == nil {
		err = image.setDiffIDs(parsed)
	}
	if err != nil {
		return contentError(what, err)
	}
	group, together := errgroup.WithContext(ctx)
	group.SetLimit(c.opt.Parallel)
	for n, bl := range all[1:] {
		group.Go(func() error { return c.opt.Blobs.get(together, bl, sources, c.patience(), progress.of(n+1)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.opt.Blobs.recall(ctx, image.Layers, all[1:])
}

func (c *Client) patience() patience {
	return patience{stall: c.opt.Stall, backoff: c.opt.Backoff, tries: c.opt.Tries, note: func(bl blob, from string, err error) {
		c.opt.Log.Info("a download broke off", "blob", bl.digest, "from", from, "error", err)
	}}
}

// each connects to the places of a reference and gives them, the one that
// answered first. What none can do is the error of the origin.
func (c *Client) each(ctx context.Context, ref Reference, try func(*endpoint) error) ([]*endpoint, error) {
	places, err := c.endpoints(ref)
	if err != nil {
		return nil, err
	}
	if err := c.first(ctx, "pull "+ref.String(), places, try); err != nil {
		closeAll(places)
		return nil, err
	}
	slices.SortStableFunc(places, func(a, b *endpoint) int { return btoi(a.ailing) - btoi(b.ailing) })
	return places, nil
}

func closeAll(places []*endpoint) {
	for _, e := range places {
		e.close()
	}
}

// first tries one place after the other, mirrors once and the origin as often
// as is patient.
func (c *Client) first(ctx context.Context, what string, places []*endpoint, try func(*endpoint) error) error {
	var last *api.Error
	for _, e := range places {
		for failures := 1; ; failures++ {
			err := try(e)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !e.mirror || last == nil {
				last = e.explain(what, err)
			}
			c.opt.Log.Info("a registry did not give a manifest", "from", e.name(), "error", err)
			if e.mirror || !transient(err) || failures >= c.opt.Tries {
				break
			}
			select {
			case <-time.After(c.opt.Backoff(failures)):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		e.ailing = true
	}
	return last
}

// blobSource is an endpoint as a source of the blobs of one image.
type blobSource struct {
	*endpoint
	what string // pull …
}

func (s *blobSource) explain(bl blob, err error) (error, bool) {
	return s.endpoint.explain(s.what+": "+bl.what+" "+bl.digest, err), !transient(err)
}

// opener gives Layer.Open of a blob.
func (c *Client) opener(bl blob) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return c.opt.Blobs.open(bl) }
}

// progress adds up what is here of several blobs.
type progress struct {
	mu     sync.Mutex
	have   []int64
	done   int64
	total  int64
	report Report
}

func newProgress(blobs []blob, report Report) *progress {
	p := &progress{have: make([]int64, len(blobs)), report: report}
	for _, bl := range blobs {
		p.total += bl.size
	}
	return p
}

// of gives what a blob's download is to tell.
func (p *progress) of(n int) func(have int64) {
	return func(have int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done += have - p.have[n]
		p.have[n] = have
		if p.report != nil {
			p.report(p.done, p.total)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

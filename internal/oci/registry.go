package oci

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bangervm/banger/api"
)

// endpoint is one repository in one registry: where an image comes from, or a
// mirror of it. It lives for one fetch.
type endpoint struct {
	client     *Client
	host       string // as people write it
	repository string
	mirror     bool

	base  http.RoundTripper
	plain *http.Transport

	mu        sync.Mutex // held while connecting
	who       login
	connected *http.Client // nil before the first request
	ailing    bool         // it failed us: others first
}

// endpoints gives the places an image can be had from, mirrors first.
func (c *Client) endpoints(ref Reference) ([]*endpoint, error) {
	var list []*endpoint
	add := func(host, repository string, mirror bool) error {
		base, plain, err := c.transport(host)
		if err != nil {
			return err
		}
		list = append(list, &endpoint{client: c, host: host, repository: repository, mirror: mirror, base: base, plain: plain})
		return nil
	}
	for _, m := range c.opt.Registries[ref.Host].Mirrors {
		host, prefix, _ := strings.Cut(m, "/")
		repository := ref.Repository
		if prefix = strings.Trim(prefix, "/"); prefix != "" {
			repository = prefix + "/" + repository
		}
		if err := add(canonicalHost(host), repository, true); err != nil {
			return nil, err
		}
	}
	return list, add(ref.Host, ref.Repository, false)
}

func (e *endpoint) close() { e.plain.CloseIdleConnections() }

// stall is how long it may give nothing of a manifest. There is another place
// behind a mirror.
func (e *endpoint) stall() time.Duration {
	if e.mirror {
		return e.client.opt.Stall / 3
	}
	return e.client.opt.Stall
}

// apiHost is what is dialled.
func (e *endpoint) apiHost() string {
	if e.host == dockerHub {
		return dockerHubAPI
	}
	return e.host
}

func (e *endpoint) name() string { return e.host + "/" + e.repository }

// user is who we were to the registry; empty for nobody.
func (e *endpoint) user() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.who.user
}

// connect finds out how to speak to the registry and logs in, once.
func (e *endpoint) connect(ctx context.Context) (*http.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.connected != nil {
		return e.connected, nil
	}
	var err error
	if e.who, err = e.client.credentials(ctx, e.host, e.repository); err != nil {
		return nil, err
	}
	options := []name.Option{name.StrictValidation}
	if isLoopback(e.host) || e.client.opt.Registries[e.host].PlainHTTP {
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(e.apiHost(), options...)
	if err != nil {
		return nil, err
	}
	scope := registry.Repo(e.repository).Scope(transport.PullScope)
	agent := transport.NewUserAgent(e.base, e.client.opt.UserAgent)
	tr, err := transport.NewWithContext(ctx, registry, e.who.auth, agent, []string{scope})
	if err != nil {
		return nil, err
	}
	e.connected = &http.Client{Transport: tr, CheckRedirect: checkRedirect}
	return e.connected, nil
}

// do sends a request for something of the repository. The caller closes the body
// of the reply, whose status is one of those allowed.
func (e *endpoint) do(ctx context.Context, method, what, identifier string, header http.Header, allowed ...int) (*http.Response, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	// The scheme is put right by the transport, which knows what is spoken.
	u := url.URL{Scheme: "https", Host: e.apiHost(), Path: "/v2/" + e.repository + "/" + what + "/" + identifier}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, allowed...); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

func acceptManifests() http.Header {
	accept := []string{
		string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
	}
	return http.Header{"Accept": {strings.Join(accept, ", ")}}
}

// document is a manifest or index as it came.
type received struct {
	body      []byte
	mediaType string
	digest    string
}

// manifest gets a manifest or an index by tag or digest. One asked for by its
// digest is checked.
func (e *endpoint) manifest(ctx context.Context, identifier string) (received, error) {
	ctx, alive, stop := watch(ctx, e.stall())
	defer stop()
	resp, err := e.do(ctx, http.MethodGet, "manifests", identifier, acceptManifests(), http.StatusOK)
	if err != nil {
		return received{}, causeOf(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	alive(e.stall())
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return received{}, causeOf(ctx, err)
	}
	if len(body) > maxManifest {
		return received{}, api.Errorf(api.KindInvalid, "its manifest is larger than %d bytes", maxManifest)
	}
	r := received{body: body, mediaType: resp.Header.Get("Content-Type"), digest: digestOf(body)}
	if strings.Contains(identifier, ":") {
		if r.digest = digestAs(identifier, body); r.digest != identifier {
			return received{}, &mismatchError{want: identifier, got: r.digest, wantSize: int64(len(body)), gotBytes: int64(len(body))}
		}
	}
	return r, nil
}

// head asks for the digest of a manifest without fetching it. Empty means that
// the registry does not tell that way.
func (e *endpoint) head(ctx context.Context, identifier string) (string, error) {
	ctx, _, stop := watch(ctx, e.stall())
	defer stop()
	resp, err := e.do(ctx, http.MethodHead, "manifests", identifier, acceptManifests(), http.StatusOK, http.StatusMethodNotAllowed, http.StatusNotImplemented)
	if err != nil {
		return "", causeOf(ctx, err)
	}
	_ = resp.Body.Close()
	digest := resp.Header.Get("Docker-Content-Digest")
	if resp.StatusCode != http.StatusOK || checkDigest(digest) != nil {
		return "", nil
	}
	return digest, nil
}

// open gives a blob from an offset on.
func (e *endpoint) open(ctx context.Context, bl blob, offset int64) (io.ReadCloser, int64, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	resp, err := e.do(ctx, http.MethodGet, "blobs", bl.digest, header,
		http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, 0, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return resp.Body, 0, nil
	case http.StatusPartialContent:
		begin, ok := rangeBegin(resp.Header.Get("Content-Range"))
		if ok {
			return resp.Body, begin, nil
		}
	}
	_ = resp.Body.Close()
	if offset == 0 {
		return nil, 0, &answerError{resp.Status + " to a request without a range"}
	}
	return e.open(ctx, bl, 0) // without a range, then
}

// rangeBegin reads where "bytes 100-199/200" begins.
func rangeBegin(s string) (int64, bool) {
	s, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, false
	}
	first, _, ok := strings.Cut(s, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && err == nil && n >= 0
}

// rootURL is where the registry's API begins, for a hint.
func (e *endpoint) rootURL() string {
	scheme := "https"
	if isLoopback(e.host) || e.client.opt.Registries[e.host].PlainHTTP {
		scheme = "http"
	}
	return scheme + "://" + e.apiHost() + "/v2/"
}

// tagsURL lists the tags of the repository, for a hint.
func (e *endpoint) tagsURL() string { return e.rootURL() + e.repository + "/tags/list" }

package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
)

// Registry is what the configuration says about one registry.
type Registry struct {
	// PlainHTTP: it speaks HTTP without TLS. Those on loopback may without it.
	PlainHTTP bool
	// CA is a file of certificates, PEM, that are trusted beside the host's.
	CA string
	// Mirrors are asked first, in order: HOST[:PORT][/PREFIX]. What a mirror
	// speaks is said under its own name.
	Mirrors []string
}

// maxCA bounds a file of certificates.
const maxCA = 4 << 20

// checkHost says whether a host is one that can be dialled.
func checkHost(host string) error {
	u, err := url.Parse("https://" + host)
	if err != nil || u.Host != host || u.Hostname() == "" || strings.HasSuffix(host, ":") || u.User != nil {
		return fmt.Errorf("%q is no host", clip(host))
	}
	return nil
}

// isLoopback says whether a host, with or without a port, is this machine.
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// errPlainHTTP is a request without TLS that is not allowed.
type errPlainHTTP struct{ host string }

func (e *errPlainHTTP) Error() string {
	return fmt.Sprintf("%s would be reached by plain HTTP, which is not allowed", e.host)
}

// errTLS is a request with TLS to a host that is configured to have none.
var errTLS = errors.New("the configuration says plain HTTP")

// policy lets plain HTTP through only where it is allowed, wherever a redirect
// or an authentication realm points.
type policy struct {
	inner      http.RoundTripper
	registries map[string]Registry
}

func (p *policy) RoundTrip(r *http.Request) (*http.Response, error) {
	host := canonicalHost(r.URL.Host)
	plain := p.registries[host].PlainHTTP
	switch {
	case r.URL.Scheme == "http" && !plain && !isLoopback(host):
		return nil, &errPlainHTTP{host}
	case r.URL.Scheme == "https" && plain:
		return nil, errTLS
	}
	return p.inner.RoundTrip(r)
}

// transport makes the connections for one registry. The caller closes idle ones
// at the end.
func (c *Client) transport(host string) (http.RoundTripper, *http.Transport, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := c.opt.Registries[host].CA; file != "" {
		pool, err := readCA(file)
		if err != nil {
			return nil, nil, api.Errorf(api.KindInvalid, "cannot use the certificates of registry %s (registries.%q.ca): %w", host, host, err).
				WithHint("banger config show")
		}
		conf.RootCAs = pool
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second, ControlContext: refuseLinkLocal}
	base := &http.Transport{
		Proxy: c.opt.Proxy, DialContext: dialer.DialContext, TLSClientConfig: conf, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 8,
		MaxResponseHeaderBytes: 256 << 10, DisableCompression: true, // blobs are wanted as they are
	}
	return &policy{inner: base, registries: c.opt.Registries}, base, nil
}

// refuseLinkLocal keeps a registry, by a redirect or a name, from making us ask
// a cloud's metadata service.
func refuseLinkLocal(_ context.Context, _, address string, _ syscall.RawConn) error {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().Unmap().IsLinkLocalUnicast() {
		return fmt.Errorf("%s is a link-local address, where no registry is", at.Addr())
	}
	return nil
}

// checkRedirect follows ten redirects, and none from elsewhere to this machine.
func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("it redirects for ever")
	}
	if isLoopback(r.URL.Host) && !isLoopback(via[0].URL.Host) {
		return fmt.Errorf("it redirects to this machine (%s)", r.URL.Host)
	}
	return nil
}

// readCA reads certificates and adds them to the host's.
func readCA(file string) (*x509.CertPool, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := readBounded(f, maxCA)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// readBounded reads all of r, and fails beyond most bytes.
func readBounded(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("it is larger than %d bytes", most)
	}
	return b, err
}

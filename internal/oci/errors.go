package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/bangervm/banger/api"
)

// explain turns an error of talking to the registry into one for people: what is
// "pull 127.0.0.1:5000/app:v1" or a part of it.
func (e *endpoint) explain(what string, err error) *api.Error {
	var ready *api.Error
	if errors.As(err, &ready) {
		said := api.Errorf(ready.Kind, "cannot %s: %w", what, err)
		said.Hint, said.Retryable, said.Candidates = ready.Hint, ready.Retryable, ready.Candidates
		return said
	}
	unavailable := func(format string, args ...any) *api.Error {
		args = append([]any{what}, args...)
		said := api.Errorf(api.KindUnavailable, "cannot %s: "+format, args...)
		said.Retryable = true
		return said
	}
	var (
		status   *transport.Error
		plain    *errPlainHTTP
		mismatch *mismatchError
		stalled  *stallError
		dns      *net.DNSError
	)
	switch {
	case errors.As(err, &mismatch):
		return unavailable("%s sent damaged data: %w", e.host, mismatch)
	case isCertificate(err):
		said := api.Errorf(api.KindUnavailable, "cannot %s: the certificate of %s is not trusted: %w; if it is the right one, name its CA as registries.%q.ca in config.toml",
			what, e.host, innermost(err), e.host)
		return said.WithHint("banger config show")
	case errors.As(err, &status):
		return e.explainStatus(what, status)
	case errors.As(err, &stalled):
		return unavailable("%s stalled: %w", e.host, stalled)
	case isPlainServer(err) || errors.As(err, &plain):
		said := api.Errorf(api.KindDenied, "cannot %s: %s speaks plain HTTP, which is allowed on loopback or with registries.%q.plain_http = true in config.toml: %w",
			what, e.host, plainHost(plain, e.host), innermost(err))
		return said.WithHint("banger config show")
	case errors.As(err, &dns) && dns.IsNotFound:
		return unavailable("there is no host %s: %w", dns.Name, innermost(err)).WithHint("curl -sSI %s", e.rootURL())
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.KindCancelled, "cannot %s: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot %s: %s: %w", what, e.host, err)
	}
	var answer *answerError
	switch {
	case errors.As(err, &answer):
		return unavailable("%s answers wrongly: %w", e.host, answer)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return unavailable("%s broke the connection off: %w", e.host, innermost(err))
	}
	return unavailable("%s cannot be reached: %w", e.host, innermost(err)).WithHint("curl -sSI %s", e.rootURL())
}

// answerError is an answer that no registry should give.
type answerError struct{ wrong string }

func (e *answerError) Error() string { return e.wrong }

func (e *endpoint) explainStatus(what string, s *transport.Error) *api.Error {
	words := diagnosis(s)
	switch s.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		said := api.Errorf(api.KindDenied, "cannot %s: %s wants a login, or there is no such image: %s", what, e.host, words)
		if user := e.user(); user != "" {
			said = api.Errorf(api.KindDenied, "cannot %s: %s refuses it to %s: %s", what, e.host, user, words)
		}
		return said.WithHint("docker login %s", e.host)
	case http.StatusNotFound:
		return api.Errorf(api.KindNotFound, "cannot %s: %s does not have it: %s", what, e.host, words).
			WithHint("curl -s %s", e.tagsURL())
	case http.StatusTooManyRequests:
		said := api.Errorf(api.KindUnavailable, "cannot %s: %s has had too many requests: %s", what, e.host, words)
		said.Retryable = true
		return said.WithHint("docker login %s", e.host)
	}
	if strings.Contains(s.Error(), "HTTP request to an HTTPS server") {
		return api.Errorf(api.KindUnavailable, "cannot %s: %s speaks TLS, but registries.%q.plain_http in config.toml says that it does not", what, e.host, e.host).
			WithHint("banger config show")
	}
	said := api.Errorf(api.KindUnavailable, "cannot %s: %s answers %s", what, e.host, words)
	said.Retryable = s.StatusCode >= 500
	return said
}

// diagnosis is what the registry said, short and in one line.
func diagnosis(s *transport.Error) string {
	words := http.StatusText(s.StatusCode)
	if len(s.Errors) > 0 {
		d := s.Errors[0]
		words = strings.Trim(strings.ToLower(strings.ReplaceAll(string(d.Code), "_", " "))+": "+d.Message, ": ")
	}
	return clip(strings.Join(strings.Fields(printable(words)), " "))
}

// printable drops what could command a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// transient says whether trying again may help.
func transient(err error) bool {
	var (
		status *transport.Error
		plain  *errPlainHTTP
		ready  *api.Error
		dns    *net.DNSError
	)
	switch {
	case isCertificate(err):
		return false
	case errors.As(err, &status):
		return status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests || status.StatusCode == http.StatusRequestTimeout
	case errors.As(err, &ready), errors.As(err, &plain), isPlainServer(err):
		return false
	case errors.As(err, &dns):
		return dns.IsTemporary || dns.IsTimeout
	}
	return true
}

func isCertificate(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		unknown      x509.UnknownAuthorityError
		name         x509.HostnameError
		invalid      x509.CertificateInvalidError
	)
	return errors.As(err, &verification) || errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid)
}

// isPlainServer says whether TLS was offered to a server that has none.
func isPlainServer(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) || err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func plainHost(plain *errPlainHTTP, host string) string {
	if plain != nil {
		return plain.host
	}
	return host
}

// innermost leaves out the URL, which may hold a signature, and the request.
func innermost(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err
}

// contentError turns what is wrong with an image, not with the way to it, into
// an error for people. Without a kind of its own it is invalid, unless it is our
// own disk that could not be read.
func contentError(what string, err error) *api.Error {
	kind := api.KindInvalid
	var ready *api.Error
	switch {
	case errors.As(err, &ready):
		kind = ready.Kind
	case errors.Is(err, syscall.EIO):
		kind = api.KindInternal
	}
	said := api.Errorf(kind, "cannot %s: %w", what, err)
	if ready != nil {
		said.Hint, said.Retryable, said.Candidates = ready.Hint, ready.Retryable, ready.Candidates
	}
	return said
}

package oci

import (
	"errors"
	"strings"

	"github.com/distribution/reference"

	"github.com/bangervm/banger/api"
)

// maxReference is the longest reference that is looked at, in bytes.
const maxReference = 1024

// dockerHub is how people write Docker's registry; its API is elsewhere.
const (
	dockerHub    = "docker.io"
	dockerHubAPI = "index.docker.io"
)

// Reference names an image in a registry.
type Reference struct {
	Host       string // as people write it: docker.io, 127.0.0.1:5000
	Repository string // library/alpine
	Tag        string // empty only with a digest
	Digest     string // sha256:…; wins over the tag
}

// ParseReference reads a reference with Docker's rules: without a registry it is
// docker.io's, without tag and digest latest. A bare name, without any of / : @,
// is refused unless short names are allowed, for elsewhere it means something of
// the catalog's, and a typing error must not reach a registry.
func ParseReference(s string, short bool) (Reference, error) {
	bad := func(cause error) (Reference, error) {
		return Reference{}, api.Errorf(api.KindInvalid, "cannot use image reference %q: %w", clip(s), cause)
	}
	switch scheme, rest, found := strings.Cut(s, "://"); {
	case len(s) > maxReference:
		return bad(errors.New("it is too long"))
	case found:
		e := api.Errorf(api.KindInvalid, "cannot use image reference %q: it has no %s:// before it", clip(s), clip(scheme))
		return Reference{}, e.WithHint("banger image pull %s", clip(rest))
	case !short && IsShort(s):
		return Reference{}, api.Errorf(api.KindInvalid, "cannot use image reference %q: it names no registry", clip(s)).
			WithHint("banger image pull %s/library/%s:latest", dockerHub, clip(s))
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return bad(errors.New(strings.TrimPrefix(err.Error(), "invalid reference format: ")))
	}
	r := Reference{Host: canonicalHost(reference.Domain(named)), Repository: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest().String()
		if err := checkDigest(r.Digest); err != nil {
			return bad(err)
		}
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	if err := checkHost(r.Host); err != nil {
		return bad(err)
	}
	return r, nil
}

// IsShort says whether a name is bare: no registry, no tag, no digest.
func IsShort(s string) bool { return !strings.ContainsAny(s, "/:@") }

// String gives the reference in full; ParseReference reads the same from it.
func (r Reference) String() string {
	s := r.Host + "/" + r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// identifier is what the registry is asked for.
func (r Reference) identifier() string {
	if r.Digest != "" {
		return r.Digest
	}
	return r.Tag
}

// canonicalHost gives the one name that a registry has in references, in the
// configuration and in messages.
func canonicalHost(host string) string {
	switch host {
	case dockerHubAPI, "registry-1.docker.io", "registry.hub.docker.com":
		return dockerHub
	}
	return host
}

// clip keeps a text that others wrote short in a message.
func clip(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

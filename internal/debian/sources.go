package debian

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bangervm/banger/api"
)

// DefaultMirror is where packages come from when neither the configuration nor
// the host names a mirror; security updates are then at DefaultSecurity.
const (
	DefaultMirror   = "http://deb.debian.org/debian"
	DefaultSecurity = "http://deb.debian.org/debian-security"
)

// Keyring is the file of Debian's package debian-archive-keyring that all
// packages are verified against, on the host and in the guest.
const Keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Source is one suite at one mirror.
type Source struct {
	URI   string
	Suite string
}

// Line is the source as apt's sources.list has it.
func (s Source) Line() string {
	return fmt.Sprintf("deb [signed-by=%s] %s %s main", Keyring, s.URI, s.Suite)
}

// Sources are the suites of one release, where they come from, in the order
// apt shall ask them.
type Sources []Source

// Deb822 is the sources as the guest's /etc/apt/sources.list.d/debian.sources
// has them. Passwords in a mirror's address stay on the host.
func (s Sources) Deb822() string {
	var b strings.Builder
	var uris []string
	suites := map[string][]string{}
	for _, src := range s {
		uri := src.URI
		if u, err := url.Parse(uri); err == nil && u.User != nil {
			u.User = nil
			uri = u.String()
		}
		if !slices.Contains(uris, uri) {
			uris = append(uris, uri)
		}
		suites[uri] = append(suites[uri], src.Suite)
	}
	for i, uri := range uris {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n",
			uri, strings.Join(suites[uri], " "), Keyring)
	}
	return b.String()
}

// Mirrors are the addresses a release comes from.
type Mirrors struct {
	Main     string
	Security string
	// From says where they were found: debian_mirror, the host's apt, or default.
	From string
}

// Sources are the suites of the release at the mirrors: itself, its updates and
// its security updates.
func (m Mirrors) Sources(suite string) Sources {
	s := Sources{{m.Main, suite}, {m.Main, suite + "-updates"}}
	if m.Security != "" {
		s = append(s, Source{m.Security, suite + "-security"})
	}
	return s
}

// ParseMirror reads the configuration key debian_mirror: the address of the
// archive, and behind a space that of the security archive. With one address,
// security updates come from its sibling debian-security where the address ends
// in /debian, else from Debian itself.
func ParseMirror(value string) (Mirrors, error) {
	fields := strings.Fields(value)
	if len(fields) == 0 || len(fields) > 2 {
		return Mirrors{}, api.Errorf(api.KindInvalid, "cannot use debian_mirror %q: it is one address, or two with that of the security archive", value).
			WithHint("export BANGER_DEBIAN_MIRROR=%s", DefaultMirror)
	}
	for i, f := range fields {
		u, err := url.Parse(f)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file") || (u.Host == "" && u.Scheme != "file") || strings.ContainsAny(f, "[]\"'\\") {
			return Mirrors{}, api.Errorf(api.KindInvalid, "cannot use debian_mirror %q: %q is no http, https or file address", value, f).
				WithHint("export BANGER_DEBIAN_MIRROR=%s", DefaultMirror)
		}
		fields[i] = strings.TrimRight(f, "/")
	}
	m := Mirrors{Main: fields[0], From: "debian_mirror"}
	switch {
	case len(fields) == 2:
		m.Security = fields[1]
	case strings.HasSuffix(m.Main, "/debian"):
		m.Security = m.Main + "-security"
	default:
		m.Security = DefaultSecurity
	}
	return m, nil
}

// HostMirrors finds the mirrors the host's own apt uses, where the host is
// Debian; root is the host's root folder, "/" but in tests. Without any it
// gives the defaults.
func HostMirrors(root string) Mirrors {
	m := Mirrors{Main: DefaultMirror, Security: DefaultSecurity, From: "default"}
	id, codename := osRelease(filepath.Join(root, "etc/os-release"))
	if id != "debian" || codename == "" {
		return m
	}
	main, security := "", ""
	for _, e := range readSources(root) {
		if !e.debian(root) {
			continue
		}
		for _, suite := range e.suites {
			switch suite {
			case codename, "stable":
				if main == "" {
					main = e.uri
				}
			case codename + "-security", "stable-security", codename + "/updates":
				if security == "" {
					security = e.uri
				}
			}
		}
	}
	if main != "" {
		m.Main, m.From = main, "the host's apt"
		if security != "" {
			m.Security = security
		}
	}
	return m
}

// osRelease reads ID and VERSION_CODENAME.
func osRelease(path string) (id, codename string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "ID":
			id = v
		case "VERSION_CODENAME":
			codename = v
		}
	}
	return id, codename
}

// FindMirrors gives the mirrors to use: the configured ones, else those of the
// host's apt, else Debian's own.
func FindMirrors(configured string) (Mirrors, error) {
	if configured != "" {
		return ParseMirror(configured)
	}
	return HostMirrors("/"), nil
}

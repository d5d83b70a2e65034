package debian

import (
	"bufio"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxSourcesFile bounds a file of apt's sources, in bytes; what is beyond is
// not read.
const maxSourcesFile = 1 << 20

// aptEntry is one address of the host's apt sources with its suites.
type aptEntry struct {
	uri        string
	suites     []string
	components []string
	signedBy   string
}

// readSources reads the host's apt sources in both formats. What cannot be read
// is left out: the host's apt has the say about its own files.
func readSources(root string) []aptEntry {
	var entries []aptEntry
	dir := filepath.Join(root, "etc/apt")
	lists, _ := filepath.Glob(filepath.Join(dir, "sources.list.d/*.list"))
	for _, p := range append([]string{filepath.Join(dir, "sources.list")}, lists...) {
		entries = append(entries, parseList(readBounded(p))...)
	}
	stanzas, _ := filepath.Glob(filepath.Join(dir, "sources.list.d/*.sources"))
	for _, p := range stanzas {
		entries = append(entries, parseDeb822(readBounded(p))...)
	}
	return entries
}

func readBounded(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, maxSourcesFile)
	n := 0
	for n < len(b) {
		k, err := f.Read(b[n:])
		n += k
		if err != nil {
			break
		}
	}
	return string(b[:n])
}

// parseList reads the one-line format: deb [options] uri suite components.
func parseList(text string) []aptEntry {
	var entries []aptEntry
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, maxSourcesFile)
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t") {
			continue
		}
		rest = strings.TrimSpace(rest)
		var e aptEntry
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for _, o := range strings.Fields(options) {
				if v, ok := strings.CutPrefix(o, "signed-by="); ok {
					e.signedBy = v
				}
			}
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 3 {
			continue
		}
		e.uri, e.suites, e.components = strings.TrimRight(f[0], "/"), f[1:2], f[2:]
		entries = append(entries, e)
	}
	return entries
}

// parseDeb822 reads stanzas of keys and values.
func parseDeb822(text string) []aptEntry {
	var entries []aptEntry
	fields := map[string]string{}
	key := ""
	flush := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") && !strings.EqualFold(strings.TrimSpace(fields["enabled"]), "no") {
			for _, uri := range strings.Fields(fields["uris"]) {
				entries = append(entries, aptEntry{
					uri: strings.TrimRight(uri, "/"), suites: strings.Fields(fields["suites"]),
					components: strings.Fields(fields["components"]), signedBy: strings.TrimSpace(fields["signed-by"]),
				})
			}
		}
		fields, key = map[string]string{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			if key != "" {
				fields[key] += " " + strings.TrimSpace(line)
			}
		default:
			k, v, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			key = strings.ToLower(strings.TrimSpace(k))
			fields[key] = strings.TrimSpace(v)
		}
	}
	flush()
	return entries
}

// debian says whether the entry is a mirror of Debian itself and not another
// archive for Debian: by what apt last fetched from there, else by its look.
// It only chooses; the signature of whatever it chose is checked.
func (e aptEntry) debian(root string) bool {
	u, err := url.Parse(e.uri)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.ContainsAny(e.uri, "[]\"'\\") {
		return false
	}
	if !slices.Contains(e.components, "main") {
		return false
	}
	if e.signedBy != "" && !strings.Contains(e.signedBy, "debian-archive") && !strings.Contains(e.signedBy, "BEGIN PGP") {
		return false
	}
	if len(e.suites) > 0 {
		name := strings.NewReplacer("/", "_", ":", "%3a").Replace(u.Host + u.Path + "/dists/" + e.suites[0] + "/InRelease")
		if b := readBounded(filepath.Join(root, "var/lib/apt/lists", name)); b != "" {
			return strings.Contains(b, "\nOrigin: Debian\n")
		}
	}
	return u.Host == "debian.org" || strings.HasSuffix(u.Host, ".debian.org") || strings.HasPrefix(filepath.Base(u.Path), "debian")
}

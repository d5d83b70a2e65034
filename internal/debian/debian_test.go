package debian

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

func TestHostMirrors(t *testing.T) {
	t.Parallel()
	const release = "ID=debian\nVERSION_CODENAME=trixie\n"
	cases := map[string]struct {
		files map[string]string
		want  Mirrors
	}{
		"not Debian": {map[string]string{
			"etc/os-release":       "ID=ubuntu\nVERSION_CODENAME=noble\n",
			"etc/apt/sources.list": "deb http://ubuntu.example/ubuntu noble main\n",
		}, Mirrors{DefaultMirror, DefaultSecurity, "default"}},
		"no sources": {map[string]string{"etc/os-release": release}, Mirrors{DefaultMirror, DefaultSecurity, "default"}},
		"one line each": {map[string]string{
			"etc/os-release": release,
			"etc/apt/sources.list": "# deb http://old.example/debian trixie main\n" +
				"deb-src http://src.example/debian trixie main\n" +
				"deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian/ trixie main contrib # ours\n" +
				"deb http://mirror.example/debian-security trixie-security main\n",
		}, Mirrors{"http://mirror.example/debian", "http://mirror.example/debian-security", "the host's apt"}},
		"stanzas": {map[string]string{
			"etc/os-release": release,
			"etc/apt/sources.list.d/debian.sources": "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\nSuites: trixie\n trixie-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n" +
				"Types: deb\nURIs: http://off.example/debian\nSuites: trixie-security\nComponents: main\nEnabled: no\n\n" +
				"Types: deb\nURIs: https://sec.example/debian-security\nSuites: trixie-security\nComponents: main\n",
		}, Mirrors{"http://mirror.example/debian", "https://sec.example/debian-security", "the host's apt"}},
		"others' archives": {map[string]string{
			"etc/os-release": release,
			"etc/apt/sources.list": "deb https://download.example/linux/debian trixie stable\n" +
				"deb [signed-by=/etc/apt/keyrings/x.gpg] https://x.example/debian trixie main\n" +
				"deb https://apt.example/packages trixie main\n" +
				"deb cdrom:[Debian]/ trixie main\n" +
				"deb file:///srv/debian trixie main\n" +
				"deb\ndeb [\ndeb []\n",
		}, Mirrors{DefaultMirror, DefaultSecurity, "default"}},
		"by what apt fetched": {map[string]string{
			"etc/os-release": release,
			"etc/apt/sources.list": "deb http://looks.example/debian trixie main\n" +
				"deb http://cache.example:3142/archive trixie main\n",
			"var/lib/apt/lists/looks.example_debian_dists_trixie_InRelease":         "Hash\nOrigin: Somebody\n",
			"var/lib/apt/lists/cache.example%3a3142_archive_dists_trixie_InRelease": "Hash\nOrigin: Debian\n",
		}, Mirrors{"http://cache.example:3142/archive", DefaultSecurity, "the host's apt"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for path, text := range c.files {
				p := filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(c.want, HostMirrors(root)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseMirror(t *testing.T) {
	t.Parallel()
	good := map[string]Mirrors{
		"http://m.example/debian/":                     {"http://m.example/debian", "http://m.example/debian-security", "debian_mirror"},
		"https://m.example/d http://s.example/s":       {"https://m.example/d", "http://s.example/s", "debian_mirror"},
		"http://m.example/other":                       {"http://m.example/other", DefaultSecurity, "debian_mirror"},
		"http://user:secret@m.example/debian":          {"http://user:secret@m.example/debian", "http://user:secret@m.example/debian-security", "debian_mirror"},
		"  http://m.example/debian  http://s.example ": {"http://m.example/debian", "http://s.example", "debian_mirror"},
	}
	for in, want := range good {
		got, err := ParseMirror(in)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%q: %v\n%s", in, err, d)
		}
	}
	for _, in := range []string{"", " ", "m.example/debian", "ftp://m.example/debian", "http://", "http://a b c", "a b c", "http://m/[x]", "http://m/\"x"} {
		if _, err := ParseMirror(in); api.KindOf(err) != api.KindInvalid || api.AsError(err).Hint == "" {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestSourcesInTheGuestHoldNoPassword(t *testing.T) {
	t.Parallel()
	s := Mirrors{Main: "http://user:secret@m.example/debian", Security: "http://s.example/sec"}.Sources("bookworm")
	want := "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: " + Keyring +
		"\n\nTypes: deb\nURIs: http://s.example/sec\nSuites: bookworm-security\nComponents: main\nSigned-By: " + Keyring + "\n"
	if d := cmp.Diff(want, s.Deb822()); d != "" {
		t.Error(d)
	}
}

func TestAptOptions(t *testing.T) {
	t.Parallel()
	dump := "Acquire::http::Proxy \"http://proxy.example:3128/\";\nAcquire::https::Proxy::m.example \"DIRECT\";\nAcquire::http::Proxy \"\";\n" +
		"Acquire::Check-Valid-Until \"false\";\nAPT::Install-Recommends \"1\";\nAcquire::https::Verify-Peer \"false\";\nAcquire::http::Proxy::x \"a\\\"b\";\n"
	want := []string{`Acquire::http::Proxy "http://proxy.example:3128/"`, `Acquire::https::Proxy::m.example "DIRECT"`}
	if d := cmp.Diff(want, aptOptions(dump)); d != "" {
		t.Error(d)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var got []Progress
	o := &output{report: func(p Progress) { got = append(got, p) }}
	for line := range strings.Lines(`I: running apt-get update...
Get:1 http://m.example/debian bookworm InRelease [151 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Need to get 3000 kB/4000 kB of archives.
Get:1 http://m.example/debian bookworm/main amd64 libc6 amd64 2.36-9 [2759 kB]
Get:2 http://m.example/debian bookworm/main amd64 x amd64 1 [900 kB]
I: installing essential packages...
Unpacking libc6:amd64 (2.36-9) ...
Setting up libc6:amd64 (2.36-9) ...
I: creating tarball...
`) {
		o.line(strings.TrimSpace(line))
	}
	want := []Progress{
		{"reading package lists", 0, 0, ""},
		{"reading package lists", 151000, 0, "bytes"},
		{"downloading packages", 0, 0, ""},
		{"downloading packages", 0, 3000000, "bytes"},
		{"downloading packages", 2759000, 3000000, "bytes"},
		{"downloading packages", 3000000, 3000000, "bytes"},
		{"installing essential packages", 0, 0, ""},
		{"installing essential packages", 1, 4, "items"},
		{"installing essential packages", 2, 4, "items"},
		{"writing the file system", 0, 0, ""},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	cases := []struct {
		lines string
		kind  api.Kind
		says  string
	}{
		{"E: Failed to fetch http://m/pool/a_1.deb  404  Not Found [IP: 1.2.3.4 80]\nE: Unable to fetch some archives", api.KindUnavailable, "cannot download a_1.deb from http://m/pool/a_1.deb: 404 Not Found"},
		{"W: Failed to fetch http://m/debian/dists/b/InRelease  Could not resolve 'm'", api.KindUnavailable, "cannot download InRelease from http://m/debian/dists/b/InRelease: Could not resolve 'm'"},
		{"E: Failed to fetch", api.KindInternal, "Failed to fetch"},
		{"dpkg: error: write: No space left on device", api.KindNoSpace, "no space left"},
		{"E: You don't have enough free space in /x/var/cache/apt/archives/.", api.KindNoSpace, "no space left"},
		{"newuidmap: uid range [0-1) -> [100000-100001) not allowed", api.KindUnsupported, "cannot build without root"},
		{"E: Unable to locate package nonsense\nE: apt-get --yes failed: exit 100", api.KindUnavailable, "nonsense"},
		{"E: apt-get --yes failed: exit 100\nE: mmdebstrap failed to run", api.KindInternal, "mmdebstrap"},
		{"", api.KindInternal, "exit status 25"},
	}
	for _, c := range cases {
		o := &output{}
		for line := range strings.Lines(c.lines) {
			o.line(strings.TrimSpace(line))
		}
		if e := o.failure(errors.New("exit status 25")); e.Kind != c.kind || !strings.Contains(e.Message, c.says) {
			t.Errorf("%q: %s %q", c.lines, e.Kind, e.Message)
		}
	}
}

func TestRemoveTempTouchesNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, "/", "", "banger-build-x", filepath.Join(dir, "banger-build-x", "y")} {
		if err := RemoveTemp(t.Context(), d); err == nil {
			t.Errorf("%q was accepted", d)
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	if err := RemoveTemp(t.Context(), filepath.Join(dir, "banger-build-missing")); err != nil {
		t.Errorf("a missing one: %v", err)
	}
}

func FuzzOutput(f *testing.F) {
	f.Add("Get:1 http://m x [1 kB]\nNeed to get 1 B of archives.\n0 upgraded, 5 newly installed, 0 to remove\nE: Failed to fetch http://m/x  1\nUnpacking x")
	f.Fuzz(func(t *testing.T, text string) {
		o := &output{report: func(p Progress) {
			if p.Done < 0 || p.Total < 0 {
				t.Errorf("%+v", p)
			}
		}}
		readLines(strings.NewReader(text), o.line)
		if o.failure(errors.New("exit status 1")).Message == "" {
			t.Error("no message")
		}
	})
}

func FuzzSources(f *testing.F) {
	f.Add("deb [signed-by=/x] http://m/debian bookworm main\n", "Types: deb\nURIs: http://m\nSuites: a\n b\n")
	f.Fuzz(func(t *testing.T, list, stanzas string) {
		for _, e := range append(parseList(list), parseDeb822(stanzas)...) {
			e.debian("/nonexistent")
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add("Package: a\nVersion: 1\n\nPackage: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = ReadStatus(strings.NewReader(text))
	})
}

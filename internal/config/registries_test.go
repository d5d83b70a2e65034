package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

func TestRegistries(t *testing.T) {
	t.Parallel()
	want := map[string]Registry{
		"127.0.0.1:5000":   {PlainHTTP: true},
		"registry.example": {CA: "/etc/ssl/ours.pem", Mirrors: []string{"mirror.example:5000", "cache.example/hub"}},
	}
	file := `
log_level = "debug"
[registries."127.0.0.1:5000"]
plain_http = true
[registries."registry.example"]
ca = "/etc/ssl/ours.pem"
mirrors = ["mirror.example:5000", "cache.example/hub"]
`
	variable := `{"127.0.0.1:5000" = {plain_http = true}, "registry.example" = {ca = "/etc/ssl/ours.pem", mirrors = ["mirror.example:5000", "cache.example/hub"]}}`
	for name, tc := range map[string]struct {
		file, variable, source string
	}{
		"the file":                     {file, "", FromFile},
		"the variable":                 {"", variable, FromEnvironment},
		"the variable covers the file": {"[registries.\"other\"]\nplain_http = true\n", variable, FromEnvironment},
	} {
		c, err := load(t, tc.file, map[string]string{"BANGER_REGISTRIES": tc.variable})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, c.Registries); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for _, v := range c.Values() {
			if v.Key == "registries" && v.Source != tc.source {
				t.Errorf("%s: %+v", name, v)
			}
		}
	}
}

func TestWrongRegistriesNameTheLine(t *testing.T) {
	t.Parallel()
	for file, says := range map[string]string{
		"[registries.\"a:1\"]\nplain_http = 1\n":                     "line 2: registries.\"a:1\".plain_http: plain_http must be true or false",
		"[registries.\"a:1\"]\nplain_http = true\nca = \"ca.pem\"\n": "line 3: registries.\"a:1\".ca: ca must be the absolute path",
		"[registries.\"a:1\"]\nmirrors = \"b\"\n":                    "line 2: registries.\"a:1\".mirrors: mirrors must be a list",
		"[registries.\"a:1\"]\nmirrors = [\"https://b\"]\n":          "no https:// before it",
		"[registries.\"a:1\"]\nmirrors = [1]\n":                      "is no mirror",
		"[registries.\"a:1\"]\n\ninsecure = true\n":                  "line 3: registries.\"a:1\".insecure: unknown key \"insecure\"",
		"[registries.127.0.0.1]\nplain_http = true\n":                "written in quotes",
		"[registries.\"https://a\"]\nplain_http = true\n":            "no host of a registry",
		"[registries.\"a b\"]\nplain_http = true\n":                  "no host of a registry",
		"registries = \"a\"\n":                                       "line 1: registries: it must be a table",
		"[registries]\na = true\n":                                   "it must be a table",
		"[[registries]]\nplain_http = true\n":                        "it must be a table",
		"\n[registries.\"a\".plain_http.deeper]\nx = 1\n":            "unknown key",
	} {
		_, err := load(t, file, nil)
		if err == nil {
			t.Errorf("%q is taken", file)
		} else if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), says) || !strings.HasPrefix(api.AsError(err).Hint, "sed -n ") {
			t.Errorf("%q: %v (hint %q), want %q", file, err, api.AsError(err).Hint, says)
		}
	}
	for variable, says := range map[string]string{
		"yes":                            "is no table",
		`{"a" = true}`:                   "must be a table",
		`{"a" = {plain = true}}`:         "unknown key",
		`{"a" = {}}` + "\nlog_level = 1": "is no table",
	} {
		_, err := load(t, "", map[string]string{"BANGER_REGISTRIES": variable})
		if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", variable, err, says)
		}
	}
}

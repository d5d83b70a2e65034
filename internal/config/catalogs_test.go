package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

func TestCatalogs(t *testing.T) {
	t.Parallel()
	const key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
	want := []Catalog{
		{Name: "ours", Location: "https://x.example/catalog.json", PublicKey: key},
		{Name: "mine", Location: "/srv/catalog.json"},
		{Name: "lab", Location: "http://lab.example/c.json", PlainHTTP: true},
		{Name: "here", Location: "http://127.0.0.1:8000/c.json"},
	}
	file := `
log_level = "debug"
[[catalogs]]
name = "ours"
location = "https://x.example/catalog.json"
public_key = "` + key + `"
[[catalogs]]
name = "mine"
location = "/srv/catalog.json"
[[catalogs]]
name = "lab"
location = "http://lab.example/c.json"
plain_http = true
[[catalogs]]
name = "here"
location = "http://127.0.0.1:8000/c.json"
[vm_defaults]
memory = "1G"
`
	c, err := load(t, file, nil)
	if d := cmp.Diff(want, c.Catalogs); err != nil || d != "" || c.VMDefaults.Memory != gib {
		t.Errorf("%v %s", err, d)
	}
	one := `[{name = "mine", location = "/srv/catalog.json"}]`
	for name, c := range map[string]struct {
		file string
		env  map[string]string
		from string
	}{
		"inline":      {"catalogs = " + one, nil, FromFile},
		"environment": {file, map[string]string{"BANGER_CATALOGS": one}, FromEnvironment},
	} {
		got, err := load(t, c.file, c.env)
		if d := cmp.Diff(want[1:2], got.Catalogs); err != nil || d != "" {
			t.Errorf("%s: %v %s", name, err, d)
		}
		for _, v := range got.Values() {
			if v.Key == "catalogs" && v.Source != c.from {
				t.Errorf("%s: it came from %s", name, v.Source)
			}
		}
	}
	for name, c := range map[string]struct{ text, says string }{
		"text":            {`catalogs = "x"`, "line 1: catalogs: it must be a list of tables"},
		"a list of texts": {`catalogs = ["x"]`, "a list of tables"},
		"a table":         {"[catalogs]\nname = \"x\"", "a list of tables"},
		"no name":         {"[[catalogs]]\nlocation = \"/x\"", "the name \"\""},
		"banger's name":   {"[[catalogs]]\nname = \"banger\"\nlocation = \"/x\"", "not banger"},
		"no location":     {"[[catalogs]]\nname = \"x\"", "x: location"},
		"a relative one":  {"[[catalogs]]\nname = \"x\"\nlocation = \"c.json\"", "x: location"},
		"plain http":      {"[[catalogs]]\nname = \"x\"\nlocation = \"http://x.example/\"", "plain_http = true"},
		"a bad key":       {"[[catalogs]]\nname = \"x\"\nlocation = \"/x\"\npublic_key = \"RW\"", "x: public_key"},
		"an unknown key":  {"[[catalogs]]\nname = \"x\"\nurl = \"/x\"", `unknown key "url"`},
		"a number":        {"[[catalogs]]\nname = 1", "name must be a text"},
		"one name twice":  {"[[catalogs]]\nname = \"x\"\nlocation = \"/x\"\n[[catalogs]]\nname = \"x\"\nlocation = \"/y\"", "two have the name"},
	} {
		if _, err := load(t, c.text, nil); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := load(t, "", map[string]string{"BANGER_CATALOGS": "ours"}); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "BANGER_CATALOGS") {
		t.Errorf("environment: %v", err)
	}
}

package catalog

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestEverythingOfTheFormat(t *testing.T) {
	t.Parallel()
	got, err := Parse([]byte(`{
		"catalog_version": 1, "description": "ours", "public_key": "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
		"images": [
			{"name": "app", "description": "the app", "kernel": "debian-bookworm-cloud", "sources": [
				{"kind": "bundle", "url": "app.tar.zst", "digest": "` + digest + `", "size_bytes": 5, "arch": "amd64"},
				{"kind": "hologram", "projector": {"colour": "blue"}},
				{"kind": "oci", "reference": "registry.example/app:1"}
			]},
			{"name": "base", "sources": [{"kind": "debian", "suite": "trixie", "variant": "apt", "packages": ["git", "g++"], "env": ["A=b c"], "tree_bytes": 1, "image_bytes": 2,
				"keys": ["4CB50190207B4758A3F73A796ED0E7B82643E131"]}]}
		],
		"kernels": [
			{"name": "k", "sources": [{"kind": "file", "url": "https://x.example/l.deb", "digest": "` + digest + `"}, {"kind": "bundle", "url": "/b", "digest": "` + digest + `"}]}
		]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Catalog{
		Version: 1, Description: "ours", PublicKey: "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
		Images: []Entry{
			{Name: "app", Description: "the app", Kernel: "debian-bookworm-cloud", Sources: []Source{
				{Kind: KindBundle, Arch: "amd64", Bundle: &Download{URL: "app.tar.zst", Digest: digest, SizeBytes: 5}},
				{Kind: "hologram"},
				{Kind: KindOCI, OCI: &OCI{Reference: "registry.example/app:1"}},
			}},
			{Name: "base", Sources: []Source{{Kind: KindDebian, Debian: &Debian{
				Suite: "trixie", Variant: "apt", Packages: []string{"git", "g++"}, Env: []string{"A=b c"}, TreeBytes: 1, ImageBytes: 2,
				Keys: []string{"4CB50190207B4758A3F73A796ED0E7B82643E131"},
			}}}},
		},
		Kernels: []Entry{{Name: "k", Sources: []Source{
			{Kind: KindFile, File: &Download{URL: "https://x.example/l.deb", Digest: digest}},
			{Kind: KindBundle, Bundle: &Download{URL: "/b", Digest: digest}},
		}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, again); d != "" {
		t.Errorf("written and read again: %s", d)
	}
}

func TestWhatIsNotInTheFormat(t *testing.T) {
	t.Parallel()
	entry := func(s string) string {
		return `{"catalog_version":1,"images":[{"name":"app","sources":[{"kind":"oci","reference":"a/b"}]},` + s + `]}`
	}
	source := func(s string) string { return entry(`{"name":"x","sources":[` + s + `]}`) }
	kernel := func(s string) string {
		return `{"catalog_version":1,"kernels":[{"name":"x","sources":[` + s + `]}]}`
	}
	debian := func(s string) string { return source(`{"kind":"debian","suite":"bookworm",` + s + `}`) }
	for name, c := range map[string]struct{ text, says string }{
		"nothing":             {"", "no catalog"},
		"a list":              {"[]", "no catalog"},
		"no version":          {"{}", "no catalog_version"},
		"a newer version":     {`{"catalog_version":2,"worlds":[]}`, "newer banger"},
		"an unknown key":      {`{"catalog_version":1,"imges":[]}`, `"imges"`},
		"two of them":         {`{"catalog_version":1}{"catalog_version":1}`, "no catalog"},
		"no text":             {"{\"catalog_version\":1,\"description\":\"\xff\"}", "UTF-8"},
		"too much":            {strings.Repeat(" ", MaxBytes+1), "more than"},
		"a bad key":           {`{"catalog_version":1,"public_key":"RWQ"}`, "public_key"},
		"no name":             {entry(`{"sources":[{"kind":"x"}]}`), "images[1]: the name"},
		"a name in capitals":  {entry(`{"name":"App","sources":[{"kind":"x"}]}`), "images[1]: the name"},
		"a name with a slash": {entry(`{"name":"a/b","sources":[{"kind":"x"}]}`), "images[1]: the name"},
		"a long name":         {entry(`{"name":"` + strings.Repeat("a", 64) + `","sources":[{"kind":"x"}]}`), "images[1]: the name"},
		"a name twice":        {entry(`{"name":"app","sources":[{"kind":"x"}]}`), "images[1] (app): the name is there twice"},
		"an escape sequence":  {entry(`{"name":"x","description":"\u001b[2J","sources":[{"kind":"x"}]}`), "control character"},
		"a long description":  {entry(`{"name":"x","description":"` + strings.Repeat("a", 1001) + `","sources":[{"kind":"x"}]}`), "more than"},
		"a bad kernel":        {entry(`{"name":"x","kernel":"../x","sources":[{"kind":"x"}]}`), "kernel"},
		"no sources":          {entry(`{"name":"x","sources":[]}`), "it has 0 sources"},
		"many sources":        {source(strings.Repeat(`{"kind":"x"},`, 16) + `{"kind":"x"}`), "it has 17 sources"},
		"no kind":             {source(`{}`), "sources[0]: kind"},
		"an odd arch":         {source(`{"kind":"x","arch":"A B"}`), "arch"},
		"a key of another":    {source(`{"kind":"oci","reference":"a/b","url":"x"}`), `"url"`},
		"a bare reference":    {source(`{"kind":"oci","reference":"debian"}`), "full reference"},
		"a spaced reference":  {source(`{"kind":"oci","reference":"a/b --x"}`), "full reference"},
		"a file":              {source(`{"kind":"file","url":"x","digest":"` + digest + `"}`), "not for images"},
		"no digest":           {source(`{"kind":"bundle","url":"x"}`), "digest"},
		"a short digest":      {source(`{"kind":"bundle","url":"x","digest":"sha256:00"}`), "digest"},
		"no url":              {source(`{"kind":"bundle","digest":"` + digest + `"}`), "url"},
		"an odd url":          {source(`{"kind":"bundle","url":"mailto:x","digest":"` + digest + `"}`), "url"},
		"a negative size":     {source(`{"kind":"bundle","url":"x","digest":"` + digest + `","size_bytes":-1}`), "size_bytes"},
		"an option as suite":  {source(`{"kind":"debian","suite":"--help","packages":[]}`), "suite"},
		"an odd variant":      {debian(`"variant":"custom","packages":[]`), "variant"},
		"an option":           {debian(`"packages":["--x"]`), "packages"},
		"a pattern of apt's":  {debian(`"packages":["?essential"]`), "packages"},
		"two packages in one": {debian(`"packages":["a,b"]`), "packages"},
		"a path":              {debian(`"packages":["./x.deb"]`), "packages"},
		"an odd variable":     {debian(`"packages":[],"env":["=x"]`), "env"},
		"an odd fingerprint":  {debian(`"packages":[],"keys":["4cb5"]`), "keys"},
		"negative bytes":      {debian(`"packages":[],"tree_bytes":-1`), "negative"},
		"a kernel of two":     {kernel(`{"kind":"debian","suite":"bookworm","packages":["aa","bb"]}`), "one package"},
		"a kernel by oci":     {kernel(`{"kind":"oci","reference":"a/b"}`), "not for kernels"},
		"a kernel's kernel":   {`{"catalog_version":1,"kernels":[{"name":"x","kernel":"y","sources":[{"kind":"x"}]}]}`, "kernel"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse([]byte(source(`{"kind":"oci","reference":"a/b"}`))); err != nil {
		t.Errorf("what most others were made from: %v", err)
	}
}

// FuzzParse feeds catalogs: what is taken is taken again as it is written.
func FuzzParse(f *testing.F) {
	f.Add(builtin)
	f.Add([]byte(`{"catalog_version":1,"images":[{"name":"a","sources":[{"kind":"bundle","url":"b","digest":"` + digest + `"},{"kind":"x","y":1}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		second, err := json.Marshal(again)
		if err != nil || string(second) != string(text) {
			t.Errorf("%s\nbecame\n%s, %v", text, second, err)
		}
	})
}

package oci

import (
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

func TestParseReference(t *testing.T) {
	t.Parallel()
	d := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"alpine:3":                        "docker.io/library/alpine:3",
		"library/alpine":                  "docker.io/library/alpine:latest",
		"team/app":                        "docker.io/team/app:latest",
		"docker.io/alpine":                "docker.io/library/alpine:latest",
		"index.docker.io/library/alpine":  "docker.io/library/alpine:latest",
		"registry-1.docker.io/team/app:1": "docker.io/team/app:1",
		"127.0.0.1:5000/team/app:v1":      "127.0.0.1:5000/team/app:v1",
		"[::1]:5000/app":                  "[::1]:5000/app:latest",
		"localhost/app":                   "localhost/app:latest",
		"reg.example/a/b/c:x_Y.1":         "reg.example/a/b/c:x_Y.1",
		"reg.example/app@" + d:            "reg.example/app@" + d,
		"reg.example/app:v1@" + d:         "reg.example/app:v1@" + d,
		"app@" + d:                        "docker.io/library/app@" + d,
	} {
		got, err := ParseReference(text, false)
		if err != nil || got.String() != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
			continue
		}
		if again, err := ParseReference(got.String(), false); err != nil || again != got {
			t.Errorf("%q reads as %+v, %v", got, again, err)
		}
	}
	if got, err := ParseReference("alpine", true); err != nil || got.String() != "docker.io/library/alpine:latest" {
		t.Errorf("%q, %v", got, err)
	}
	_, err := ParseReference("alpine", false)
	wantError(t, err, api.KindInvalid, "banger image pull docker.io/library/alpine:latest", "names no registry")
	_, err = ParseReference("https://reg.example/app:1", true)
	wantError(t, err, api.KindInvalid, "banger image pull reg.example/app:1", "no https://")
	for _, text := range []string{
		"", "/", ":", "@", "App:1", "reg.example/App", "reg.example/app:", "reg.example/app:-x", "reg.example/app@sha256:abc", "reg.example/app@md5:" + strings.Repeat("a", 32),
		"reg.example/app@sha384:" + strings.Repeat("a", 96), "reg.example/a b", "reg.example/../app", "reg.example/app:" + strings.Repeat("t", 129), strings.Repeat("a/", 600),
		"reg.example:port/app:1", "reg.example/app\n", "\x00/a", "user@reg.example/app", "-/a:1", "a//b",
	} {
		got, err := ParseReference(text, true)
		if err == nil {
			t.Errorf("%q is taken as %q", text, got)
			continue
		}
		wantError(t, err, api.KindInvalid, "", "cannot use image reference")
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"alpine", "alpine:3", "a/b@sha256:" + strings.Repeat("a", 64), "[::1]:5/x", "docker://a", "localhost:5000/a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, short := range []bool{false, true} {
			r, err := ParseReference(s, short)
			if err != nil {
				if api.KindOf(err) != api.KindInvalid || len(err.Error()) > 8000 {
					t.Errorf("%q: %v", s, err)
				}
				continue
			}
			if again, err := ParseReference(r.String(), false); err != nil || again != r {
				t.Errorf("%q: %+v, then %+v, %v", s, r, again, err)
			}
		}
	})
}

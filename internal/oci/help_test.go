package oci

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

// impatient is a client for tests: its own cache, no logins, short waits.
func impatient(t *testing.T, change func(*Options)) *Client {
	t.Helper()
	opt := Options{
		Blobs: OpenBlobs(filepath.Join(t.TempDir(), "blobs")), Platform: "linux/amd64", UserAgent: "banger-test",
		Stall: 20 * time.Second, Backoff: func(int) time.Duration { return time.Millisecond }, Tries: 4,
	}
	if change != nil {
		change(&opt)
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, s string) Reference {
	t.Helper()
	ref, err := ParseReference(s, false)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// fetched fetches, and checks that the layers read as they should.
func fetched(t *testing.T, c *Client, ref string, layers ...[]byte) *Image {
	t.Helper()
	image, err := c.Fetch(context.Background(), parse(t, ref), nil)
	if err != nil {
		t.Fatalf("%s: %v", ref, err)
	}
	t.Cleanup(image.Close)
	checkLayers(t, image, layers...)
	return image
}

func checkLayers(t *testing.T, image *Image, layers ...[]byte) {
	t.Helper()
	if len(image.Layers) != len(layers) {
		t.Fatalf("%d layers, want %d", len(image.Layers), len(layers))
	}
	for n, want := range layers {
		for range 2 { // as often as wanted
			if got := read(t, image.Layers[n]); got != string(want) {
				t.Errorf("layer %d has %d bytes, want %d", n, len(got), len(want))
			}
		}
	}
}

func read(t *testing.T, l Layer) string {
	t.Helper()
	r, err := l.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantError checks kind, words and hint of an error; a "" hint is any.
func wantError(t *testing.T, err error, kind api.Kind, hint string, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %s saying %q", kind, words)
		return
	}
	e := api.AsError(err)
	if e.Kind != kind || hint != "" && !strings.HasPrefix(e.Hint, hint) || !strings.HasPrefix(e.Message, "cannot ") {
		t.Errorf("%s %q hint %q, want %s with hint %q", e.Kind, e.Message, e.Hint, kind, hint)
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			t.Errorf("%q does not say %q", e.Message, w)
		}
	}
}

func diff(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// dockerLogin makes a folder with a config.json.
func dockerLogin(t *testing.T, host, user, password string) string {
	t.Helper()
	dir := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

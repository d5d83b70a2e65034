package release

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/fetch"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/firecracker"
)

// program is a Firecracker of that version, as far as it is asked.
func program(version string) []byte {
	return []byte("#!/bin/sh\necho 'Firecracker v" + version + "'\n")
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// archive is one as the project publishes it.
func archive(t testing.TB, members map[string][]byte, order ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range order {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(members[name])), Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(members[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func official(t testing.TB, b []byte) []byte {
	return archive(t, map[string][]byte{
		"release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64.debug": []byte("debug"),
		"release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64":       b,
		"release-v1.12.1-x86_64/jailer-v1.12.1-x86_64":            []byte("jailer"),
	}, "release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64.debug", "release-v1.12.1-x86_64/jailer-v1.12.1-x86_64", "release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64")
}

type world struct {
	l     layout.Layout
	m     *Manager
	ops   *operation.Registry
	url   string
	asked int
}

// newWorld has a server that answers with body.
func newWorld(t *testing.T, body []byte, opt Options) *world {
	t.Helper()
	w := &world{}
	dir := t.TempDir()
	w.l = layout.Layout{Config: dir + "/c", State: dir + "/s", Cache: dir + "/k", Runtime: dir + "/r"}
	if err := w.l.Ensure(); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked++
		if r.URL.Path != "/fc.tgz" {
			http.NotFound(rw, r)
			return
		}
		_, _ = rw.Write(body)
	}))
	t.Cleanup(s.Close)
	w.url = s.URL + "/fc.tgz"
	db, err := store.Open(t.Context(), w.l.Database(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.ops = operation.New(db, func(api.Operation) {}, time.Now, slog.New(slog.DiscardHandler))
	opt.Client = fetch.New(fetch.Options{Attempts: 1})
	opt.Check = func(ctx context.Context, program string) (vmm.Version, error) {
		return firecracker.New(firecracker.Options{Binary: program}, slog.New(slog.DiscardHandler)).Check(ctx)
	}
	if opt.URL == "here" {
		opt.URL = w.url
	}
	w.m = New(w.l, w.ops, opt)
	t.Cleanup(func() {
		_ = w.ops.Close(context.Background())
		_ = db.Close()
	})
	return w
}

// fetch runs one to its end.
func (w *world) fetch(t *testing.T, req api.FetchFirecracker) (api.Firecracker, error) {
	t.Helper()
	var f api.Firecracker
	op, err := w.m.Fetch(t.Context(), req)
	if err != nil {
		return f, err
	}
	if op, err = w.ops.Wait(t.Context(), op.ID); err != nil {
		t.Fatal(err)
	}
	if op.Error != nil {
		return f, op.Error
	}
	return f, json.Unmarshal(op.Result, &f)
}

func TestFetch(t *testing.T) {
	t.Parallel()
	b := program("1.12.1")
	w := newWorld(t, official(t, b), Options{URL: "here", Digest: digest(b)})
	f, err := w.fetch(t, api.FetchFirecracker{})
	if err != nil || !f.Changed || f.Version != "1.12.1" || f.Path != w.l.Firecracker() || f.Digest != digest(b) {
		t.Fatalf("%+v, %v", f, err)
	}
	if got, err := os.ReadFile(f.Path); err != nil || !bytes.Equal(got, b) {
		t.Errorf("installed %q, %v", got, err)
	}
	// The second time there is nothing to do, and nobody is asked.
	asked := w.asked
	if f, err := w.fetch(t, api.FetchFirecracker{}); err != nil || f.Changed || w.asked != asked {
		t.Errorf("again: %+v, %v, asked %d times more", f, err, w.asked-asked)
	}
	// The digest is what counts, with or without its kind.
	if f, err := w.fetch(t, api.FetchFirecracker{URL: w.url, Digest: strings.TrimPrefix(digest(b), "sha256:")}); err != nil || f.Changed {
		t.Errorf("by digest: %+v, %v", f, err)
	}
}

func TestFetchFails(t *testing.T) {
	t.Parallel()
	good, old := program("1.12.1"), program("1.11.0")
	for name, c := range map[string]struct {
		body []byte
		want string // whose digest is wanted
		url  string // instead of the server's
		kind api.Kind
		text string
	}{
		"another digest": {official(t, good), "another", "", api.KindInvalid, "its digest is"},
		"too old":        {official(t, old), string(old), "", api.KindUnsupported, "1.11.0 is older"},
		"no program":     {archive(t, map[string][]byte{"x": nil}, "x"), "", "", api.KindInvalid, "holds no firecracker"},
		"not an archive": {[]byte("<html>not found</html>"), "", "", api.KindInvalid, "neither a program nor"},
		"cut off":        {official(t, good)[:200], string(good), "", api.KindInvalid, "archive"},
		"nothing":        {nil, "", "", api.KindInvalid, "less than 4 bytes"},
		"not there":      {nil, "", "/other", api.KindNotFound, ""},
		"without TLS":    {nil, "", "http://192.0.2.1/fc.tgz", api.KindDenied, "loopback"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.body, Options{})
			url := w.url
			if strings.HasPrefix(c.url, "/") {
				url = strings.TrimSuffix(w.url, "/fc.tgz") + c.url
			} else if c.url != "" {
				url = c.url
			}
			_, err := w.fetch(t, api.FetchFirecracker{URL: url, Digest: digest([]byte(c.want))})
			if api.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v (%s)", err, api.KindOf(err))
			}
			if _, err := os.Stat(w.l.Firecracker()); err == nil {
				t.Error("something was installed")
			}
			if left, err := os.ReadDir(w.l.Staging()); err != nil || len(left) > 0 {
				t.Errorf("left in staging: %v, %v", left, err)
			}
		})
	}
}

func TestFetchRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, Options{})
	for _, req := range []api.FetchFirecracker{
		{URL: w.url}, {Digest: digest(nil)}, {URL: w.url, Digest: "sha256:0"}, {URL: w.url, Digest: "md5:" + strings.Repeat("0", 64)}, {URL: "ftp://x/y", Digest: digest(nil)},
	} {
		if _, err := w.m.Fetch(t.Context(), req); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if w.asked > 0 {
		t.Error("the server was asked")
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(official(f, program("1.12.1")))
	f.Add([]byte("\x7fELF program"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		if err := os.WriteFile(in, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := extract(in, out); err == nil {
			if _, err := os.Stat(out); err != nil {
				t.Error(err)
			}
		}
	})
}

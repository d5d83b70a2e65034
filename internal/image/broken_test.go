package image

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/pull/pulltest"
)

// faultyMirror passes requests on to the host's own mirror, but for those that
// fault answers itself.
type faultyMirror struct {
	*httptest.Server
	fault atomic.Pointer[func(w http.ResponseWriter, path string, upstream *http.Response) bool]
}

func newFaultyMirror(t *testing.T) *faultyMirror {
	t.Helper()
	host := debian.HostMirrors("/")
	upstream := map[string]string{"/debian/": host.Main, "/debian-security/": host.Security}
	m := &faultyMirror{}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for prefix, base := range upstream {
			rest, ok := strings.CutPrefix(r.URL.EscapedPath(), prefix)
			if !ok {
				continue
			}
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, base+"/"+rest, nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			if f := m.fault.Load(); f != nil && resp.StatusCode == http.StatusOK && (*f)(w, rest, resp) {
				return
			}
			for _, k := range []string{"Content-Length", "Last-Modified"} {
				if v := resp.Header.Get(k); v != "" {
					w.Header().Set(k, v)
				}
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *faultyMirror) break_(f func(w http.ResponseWriter, path string, upstream *http.Response) bool) {
	m.fault.Store(&f)
}

// small is a recipe that takes seconds: two packages, unpacked, not installed.
func small() catalog.Debian {
	return catalog.Debian{Suite: "bookworm", Variant: "extract", Packages: []string{"hello", "base-files"}}
}

// real lets the catalog have one image, small, built from the recipe in earnest.
func (f *fixture) real(recipe catalog.Debian, mirror string) {
	f.opt.Build, f.opt.Mirror = Build, mirror
	f.opt.Catalog = pulltest.Entries{{Entry: catalog.Entry{Name: "small", Sources: []catalog.Source{{Kind: catalog.KindDebian, Debian: &recipe}}}}}
	f.sources[FromDebian] = recipes{f.opt}
}

func TestBrokenDownload(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Debian archive")
	}
	t.Parallel()
	deb := func(path string) bool { return strings.Contains(path, "/hello_") }
	faults := []struct {
		name  string
		fault func(w http.ResponseWriter, path string, upstream *http.Response) bool
		file  string
	}{
		{"a package is missing", func(w http.ResponseWriter, path string, _ *http.Response) bool {
			if !deb(path) {
				return false
			}
			w.WriteHeader(http.StatusNotFound)
			return true
		}, "hello_"},
		{"a package ends early", func(w http.ResponseWriter, path string, up *http.Response) bool {
			if !deb(path) {
				return false
			}
			w.Header().Set("Content-Length", up.Header.Get("Content-Length"))
			_, _ = io.CopyN(w, up.Body, 1000)
			panic(http.ErrAbortHandler)
		}, "hello_"},
		{"a package has other bytes", func(w http.ResponseWriter, path string, up *http.Response) bool {
			if !deb(path) {
				return false
			}
			b, _ := io.ReadAll(up.Body)
			b[len(b)/2] ^= 0xff
			_, _ = w.Write(b)
			return true
		}, "hello_"},
		{"the mirror is ill", func(w http.ResponseWriter, path string, _ *http.Response) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}, "Release"},
		{"the lists have other bytes", func(w http.ResponseWriter, path string, up *http.Response) bool {
			if !strings.Contains(path, "dists/bookworm/main/binary-amd64/") {
				return false
			}
			_, _ = w.Write([]byte("no list at all"))
			return true
		}, "dists/bookworm/main/binary-amd64"},
		{"the signature is missing", func(w http.ResponseWriter, path string, up *http.Response) bool {
			switch {
			case strings.HasSuffix(path, "dists/bookworm/InRelease"):
				b, _ := io.ReadAll(up.Body)
				_, _ = w.Write([]byte(strings.Replace(string(b), "Suite: ", "Suite: x", 1)))
				return true
			case strings.HasSuffix(path, "Release.gpg"):
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			return false
		}, "InRelease"},
	}
	mirror := newFaultyMirror(t)
	f := newFixture(t, t.TempDir())
	f.real(small(), mirror.URL+"/debian")
	for _, c := range faults {
		mirror.break_(c.fault)
		_, err := f.Resolve(t.Context(), "small", "", nil)
		e := api.AsError(err)
		t.Logf("%s: %v", c.name, err)
		if err == nil || e.Kind != api.KindUnavailable || !strings.Contains(e.Message, c.file) || !strings.Contains(e.Message, mirror.URL) || e.Hint == "" {
			t.Errorf("%s: got %+v", c.name, e)
		}
		f.NothingLeft(t)
	}
	mirror.fault.Store(nil)
	if _, err := f.Resolve(t.Context(), "small", "", nil); err != nil {
		t.Errorf("the next call: %v", err)
	}
	f.NothingLeft(t)
	f.noBuildFolders(t)
}

func TestMirrorNotThere(t *testing.T) {
	if testing.Short() {
		t.Skip("needs mmdebstrap")
	}
	t.Parallel()
	f := newFixture(t, t.TempDir())
	f.real(small(), "http://127.0.0.1:9/debian")
	_, err := f.Resolve(t.Context(), "small", "", nil)
	t.Log(err)
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), "127.0.0.1:9") {
		t.Errorf("got %v", err)
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Debian archive")
	}
	t.Parallel()
	mirror := newFaultyMirror(t)
	stalled := make(chan struct{}, 10)
	mirror.break_(func(w http.ResponseWriter, path string, up *http.Response) bool {
		if !strings.Contains(path, "/hello_") {
			return false
		}
		stalled <- struct{}{}
		w.Header().Set("Content-Length", up.Header.Get("Content-Length"))
		_, _ = io.CopyN(w, up.Body, 1000)
		w.(http.Flusher).Flush()
		<-up.Request.Context().Done()
		return true
	})
	f := newFixture(t, t.TempDir())
	f.real(small(), mirror.URL+"/debian")
	op, err := f.Pull(t.Context(), api.PullImage{Name: "small"})
	pulltest.Must(t, err)
	<-stalled
	begin := time.Now()
	pulltest.Must(t, f.Ops.Cancel(op.ID))
	op, err = f.Ops.Wait(t.Context(), op.ID)
	if err != nil || op.Status != api.OperationCancelled {
		t.Errorf("%v: %s %+v", err, op.Status, op.Error)
	}
	t.Logf("cancelled in %v", time.Since(begin))
	f.NothingLeft(t)
	f.noBuildFolders(t)
}

// noBuildFolders checks that the build folders of all pulls are gone.
func (f *fixture) noBuildFolders(t *testing.T) {
	t.Helper()
	ops, err := f.DB.Operations(t.Context())
	pulltest.Must(t, err)
	seen := 0
	for _, op := range ops {
		var notes struct{ Temp string }
		pulltest.Must(t, json.Unmarshal(op.Notes, &notes))
		if notes.Temp == "" {
			continue
		}
		seen++
		if _, err := os.Stat(notes.Temp); !os.IsNotExist(err) {
			t.Errorf("build folder %s is left: %v", notes.Temp, err)
		}
	}
	if seen == 0 {
		t.Error("no build folder was noted")
	}
}

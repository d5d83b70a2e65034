package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/signature"
)

// web is a Fetcher whose files the test sets.
type web struct {
	mu    sync.Mutex
	files map[string][]byte
	err   error
	stall chan struct{} // if set, answers wait for its close
	asks  chan struct{} // if set, gets one value a request that waits
	asked []string
}

func (w *web) Bytes(ctx context.Context, url, tag string, limit int64) ([]byte, string, error) {
	w.mu.Lock()
	w.asked = append(w.asked, url)
	b, ok := w.files[url]
	err, stall := w.err, w.stall
	w.mu.Unlock()
	if stall != nil {
		w.asks <- struct{}{}
		select {
		case <-stall:
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		}
	}
	switch {
	case err != nil:
		return nil, "", err
	case !ok:
		return nil, "", api.Errorf(api.KindNotFound, "cannot get %s: 404", url)
	case tag == string(b):
		return nil, tag, nil
	}
	return b, string(b), nil
}

func (w *web) set(url, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files == nil {
		w.files = map[string][]byte{}
	}
	w.files[url] = []byte(text)
}

func (w *web) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// requests gives what was asked since the last call.
func (w *web) requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.asked
	w.asked = nil
	return a
}

// fixture is a set with a web and a clock.
type fixture struct {
	*web
	*Set
	dir    string
	places []Place
	clock  time.Time
}

func newFixture(t *testing.T, places ...Place) *fixture {
	t.Helper()
	f := &fixture{web: &web{}, dir: filepath.Join(t.TempDir(), "catalogs"), places: places, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	f.restart(t)
	return f
}

// restart is the next daemon.
func (f *fixture) restart(*testing.T) {
	f.Set = New(f.places, f.dir, f.web, func() time.Time { return f.clock }, slog.New(slog.DiscardHandler))
}

// listing is a catalog with images of these names.
func listing(names ...string) string {
	var b strings.Builder
	b.WriteString(`{"catalog_version":1,"images":[`)
	for i, n := range names {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `{"name":%q,"sources":[{"kind":"bundle","url":"files/%s.tar.zst","digest":%q}]}`, n, n, digest)
	}
	return b.String() + "]}"
}

func names(items []Item) []string {
	var list []string
	for _, i := range items {
		n := i.Catalog + "/" + i.Name
		if i.ShadowedBy != "" {
			n += " by " + i.ShadowedBy
		}
		list = append(list, n)
	}
	return list
}

const at = "https://x.example/c/catalog.json"

func TestTheBuiltinCatalog(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Place{Name: "far", At: at})
	f.fail(errors.New("no network"))
	for _, name := range []string{"debian-bookworm", "debian-trixie"} {
		i, err := f.Find(t.Context(), Images, name)
		if err != nil || i.Catalog != Builtin || i.Kernel == "" || i.Sources[0].Debian == nil || i.Sources[1].OCI == nil {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
		if _, err := f.Find(t.Context(), Kernels, i.Kernel); err != nil {
			t.Errorf("the kernel of %s: %v", name, err)
		}
	}
	if asked := f.requests(); len(asked) > 0 {
		t.Errorf("asked for %v", asked)
	}
}

func TestTheEarlierCatalogHasTheName(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Place{Name: "one", At: at}, Place{Name: "two", At: "https://y.example/"})
	f.set(at, listing("app", "debian-bookworm"))
	f.set("https://y.example/", listing("app", "more"))
	want := []string{
		"banger/debian-bookworm", "banger/debian-trixie", "one/app", "one/debian-bookworm by banger", "two/app by one", "two/more",
	}
	if d := cmp.Diff(want, names(f.List(t.Context(), Images, false))); d != "" {
		t.Error(d)
	}
	for name, catalog := range map[string]string{"app": "one", "more": "two", "debian-bookworm": Builtin} {
		if i, err := f.Find(t.Context(), Images, name); err != nil || i.Catalog != catalog {
			t.Errorf("%s is of %q, %v", name, i.Catalog, err)
		}
	}
	if i, _ := f.Find(t.Context(), Images, "more"); i.Sources[0].Bundle.URL != "https://y.example/files/more.tar.zst" {
		t.Errorf("its bundle is at %s", i.Sources[0].Bundle.URL)
	}
}

func TestWhenACatalogIsAsked(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Place{Name: "far", At: at})
	f.set(at, listing("app"))
	step := func(what string, want ...string) {
		t.Helper()
		if got := f.requests(); !slices.Equal(got, want) {
			t.Errorf("%s: asked for %v, want %v", what, got, want)
		}
	}
	find := func(name string, kind api.Kind) {
		t.Helper()
		if _, err := f.Find(t.Context(), Images, name); api.KindOf(err) != kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	find("app", "")
	step("the first time", at)
	find("app", "")
	find("none", api.KindNotFound)
	f.List(t.Context(), Images, false)
	step("soon after")
	f.clock = f.clock.Add(2 * time.Hour)
	find("app", "")
	f.List(t.Context(), Images, false)
	step("a name that is there, though it is old")
	f.set(at, listing("app", "new"))
	find("new", "")
	step("a name that is not there, and it is old", at)
	f.List(t.Context(), Images, true)
	step("when told to", at)
	f.restart(t)
	find("new", "")
	step("the next daemon")
	f.restart(t)
	f.List(t.Context(), Images, true)
	step("the next daemon, when told to", at)
}

func TestOffline(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Place{Name: "far", At: at})
	dead := api.Errorf(api.KindUnavailable, "no network")
	f.fail(dead)
	if _, err := f.Find(t.Context(), Images, "app"); api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), `"far"`) {
		t.Errorf("never read: %v", err)
	}
	f.requests()
	if _, err := f.Find(t.Context(), Images, "app"); api.KindOf(err) != api.KindUnavailable || len(f.requests()) > 0 {
		t.Errorf("asked again at once: %v", err)
	}
	f.clock = f.clock.Add(time.Minute)
	f.fail(nil)
	f.set(at, listing("app"))
	if _, err := f.Find(t.Context(), Images, "app"); err != nil {
		t.Errorf("back: %v", err)
	}
	read := f.clock
	f.clock = f.clock.Add(100 * time.Hour)
	f.fail(dead)
	f.restart(t)
	if _, err := f.Find(t.Context(), Images, "app"); err != nil {
		t.Errorf("kept: %v", err)
	}
	if _, err := f.Find(t.Context(), Images, "other"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("not in what was kept: %v", err)
	}
	s := f.States()[1]
	if !s.FetchedAt.Equal(read) || s.Err == nil || s.Entries != 1 {
		t.Errorf("state: %+v", s)
	}
}

// A catalog that does not answer holds up nobody who wants what is here, and
// nobody for ever.
func TestAStalledCatalog(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Place{Name: "far", At: at}, Place{Name: "near", At: at + "?near"})
	f.set(at, listing("app"))
	f.set(at+"?near", listing("other"))
	f.List(t.Context(), Images, false)
	f.stall, f.asks = make(chan struct{}), make(chan struct{}, 10)
	done := make(chan struct{})
	go func() { f.List(t.Context(), Images, true); close(done) }()
	<-f.asks
	<-f.asks // nor does it keep the other from being asked
	for _, name := range []string{"debian-bookworm", "app"} {
		if _, err := f.Find(t.Context(), Images, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.List(ctx, Images, true)
	close(f.stall)
	<-done
	if err := f.States()[1].Err; err != nil {
		t.Errorf("one who went away spoiled it: %v", err)
	}
}

func TestACatalogThatIsAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "catalog.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := newFixture(t, Place{Name: "mine", At: path})
	if _, err := f.Find(t.Context(), Images, "app"); api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), path) {
		t.Errorf("missing: %v", err)
	}
	write(listing("app"))
	i, err := f.Find(t.Context(), Images, "app")
	if err != nil || i.Sources[0].Bundle.URL != filepath.Join(dir, "files/app.tar.zst") {
		t.Errorf("there: %+v, %v", i, err)
	}
	write(listing("newer"))
	if _, err := f.Find(t.Context(), Images, "newer"); err != nil {
		t.Errorf("changed: %v", err)
	}
	write("{")
	if _, err := f.Find(t.Context(), Images, "newer"); err != nil || f.States()[1].Err == nil {
		t.Errorf("broken: the last good one is kept: %v, %+v", err, f.States()[1])
	}
}

func key(t *testing.T) (minisign.PrivateKey, *signature.Key) {
	t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := signature.ParseKey(public.String())
	if err != nil {
		t.Fatal(err)
	}
	return private, &k
}

func sign(k minisign.PrivateKey, text string) string {
	r := minisign.NewReader(strings.NewReader(text))
	buf := make([]byte, len(text)+1)
	_, _ = r.Read(buf)
	return string(r.Sign(k))
}

func TestASignedCatalog(t *testing.T) {
	t.Parallel()
	private, k := key(t)
	other, otherKey := key(t)
	f := newFixture(t, Place{Name: "far", At: at, Key: k})
	text := listing("app")
	refused := func(what, says string) {
		t.Helper()
		f.clock = f.clock.Add(time.Minute)
		f.List(t.Context(), Images, true)
		if err := f.States()[1].Err; api.KindOf(err) != api.KindDenied || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := f.Find(t.Context(), Images, "evil"); err == nil {
			t.Errorf("%s: its entry is there", what)
		}
	}
	f.set(at, text)
	refused("unsigned", "not signed")
	f.set(at+".minisig", sign(other, text))
	refused("signed by another", otherKey.ID())
	f.set(at+".minisig", sign(private, text))
	f.List(t.Context(), Images, true)
	i, err := f.Find(t.Context(), Images, "app")
	if err != nil || i.Key == nil || !i.Key.Equal(*k) {
		t.Errorf("signed: %+v, %v", i, err)
	}
	evil := listing("app", "evil")
	f.set(at, evil)
	refused("changed", "does not fit")
	if _, err := f.Find(t.Context(), Images, "app"); err != nil {
		t.Errorf("the last good one is kept: %v", err)
	}
	// What is kept on the disk is not trusted more than what came.
	kept, err := filepath.Glob(filepath.Join(f.dir, "*.json"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	b, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept[0], []byte(strings.Replace(string(b), `"signature":"`, `"signature":"AAAA`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	refused("changed on the disk", "does not fit")
	if _, err := f.Find(t.Context(), Images, "app"); err == nil {
		t.Error("a changed copy was taken from the disk")
	}
}

func TestTheKeyOfBundles(t *testing.T) {
	t.Parallel()
	private, k := key(t)
	_, bundles := key(t)
	text := strings.Replace(listing("app"), `"catalog_version":1,`, `"catalog_version":1,"public_key":"`+bundles.String()+`",`, 1)
	for name, place := range map[string]Place{"its own": {Name: "far", At: at}, "beside that of the catalog": {Name: "far", At: at, Key: k}} {
		f := newFixture(t, place)
		f.set(at, text)
		f.set(at+".minisig", sign(private, text))
		if i, err := f.Find(t.Context(), Images, "app"); err != nil || i.Key == nil || !i.Key.Equal(*bundles) {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	f := newFixture(t, Place{Name: "far", At: at})
	f.set(at, listing("app"))
	if i, err := f.Find(t.Context(), Images, "app"); err != nil || i.Key != nil {
		t.Errorf("none: %+v, %v", i, err)
	}
}

func TestURLsOfACatalog(t *testing.T) {
	t.Parallel()
	one := func(url string) string {
		return `{"catalog_version":1,"images":[{"name":"app","sources":[{"kind":"bundle","url":"` + url + `","digest":"` + digest + `"}]}]}`
	}
	dir := t.TempDir()
	for _, c := range []struct{ at, url, want string }{
		{at, "app.tar.zst", "https://x.example/c/app.tar.zst"},
		{at, "/app.tar.zst", "https://x.example/app.tar.zst"},
		{at, "../../app.tar.zst", "https://x.example/app.tar.zst"},
		{at, "https://y.example/app.tar.zst", "https://y.example/app.tar.zst"},
		{at, "//y.example/app", "https://y.example/app"},
		{"https://me:secret@x.example/c.json", "app", "https://me:secret@x.example/app"},
		{"https://me:secret@x.example/c.json", "https://y.example/app", "https://y.example/app"},
		{at, "file:///etc/passwd", ""},
		{at, "ftp://x.example/app", ""},
		{dir + "/c.json", "app.tar.zst", dir + "/app.tar.zst"},
		{dir + "/c.json", "a%20b.tar.zst", dir + "/a b.tar.zst"},
		{dir + "/c.json", "/srv/app.tar.zst", "/srv/app.tar.zst"},
		{dir + "/c.json", "file:///srv/app.tar.zst", "/srv/app.tar.zst"},
		{dir + "/c.json", "https://y.example/app", "https://y.example/app"},
		{dir + "/c.json", "ftp://y.example/app", ""},
		{dir + "/c.json", "//y.example/app", ""},
	} {
		f := newFixture(t, Place{Name: "far", At: c.at})
		f.set(c.at, one(c.url))
		if filepath.IsAbs(c.at) {
			if err := os.WriteFile(c.at, []byte(one(c.url)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		i, err := f.Find(t.Context(), Images, "app")
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%s in %s is %s", c.url, c.at, i.Sources[0].Bundle.URL)
		case c.want != "" && (err != nil || i.Sources[0].Bundle.URL != c.want):
			t.Errorf("%s in %s: %+v, %v", c.url, c.at, i.Sources, err)
		}
	}
}

func TestPasswordsStayOutOfStates(t *testing.T) {
	t.Parallel()
	place := "https://me:secret@x.example/c.json"
	f := newFixture(t, Place{Name: "far", At: place})
	f.set(place, "{")
	_, err := f.Find(t.Context(), Images, "app")
	if s := fmt.Sprint(f.States(), err); strings.Contains(s, "secret") || !strings.Contains(s, "x.example") {
		t.Error(s)
	}
}

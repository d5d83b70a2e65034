package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/bangervm/banger/api"
)

// signed is a signature with a trusted comment of the signer's.
func signed(k minisign.PrivateKey, text, trusted string) string {
	r := minisign.NewReader(strings.NewReader(text))
	buf := make([]byte, len(text)+1)
	_, _ = r.Read(buf)
	return string(r.SignWithComments(k, trusted, "untrusted"))
}

func stamp(at time.Time) string {
	return fmt.Sprintf("timestamp:%d\tfile:catalog.json\thashed", at.Unix())
}

// What was signed once and has been replaced since is refused, however good its
// signature: it may offer what was found bad. What is signed anew is taken.
func TestAnOlderSignedCatalogIsRefused(t *testing.T) {
	t.Parallel()
	private, k := key(t)
	monday := time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC)
	tuesday := monday.Add(24 * time.Hour)
	path := filepath.Join(t.TempDir(), "catalog.json")
	for what, where := range map[string]string{"at a URL": at, "a file": path} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, Place{Name: "ours", At: where, Key: k})
			put := func(text, trusted string) {
				t.Helper()
				f.set(where, text)
				f.set(where+".minisig", signed(private, text, trusted))
				if where == path {
					for p, b := range map[string]string{path: text, path + ".minisig": signed(private, text, trusted)} {
						if err := os.WriteFile(p, []byte(b), 0o600); err != nil {
							t.Fatal(err)
						}
					}
				}
				f.clock = f.clock.Add(time.Minute)
				f.List(t.Context(), Images, true)
			}
			taken := func(name string) {
				t.Helper()
				if err := f.States()[1].Err; err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if _, err := f.Find(t.Context(), Images, name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			refused := func(name string, says ...string) {
				t.Helper()
				err := f.States()[1].Err
				for _, s := range append(says, "cannot trust "+where, "2025-12-02T00:00:00Z has been seen") {
					if api.KindOf(err) != api.KindDenied || !strings.Contains(fmt.Sprint(err), s) {
						t.Errorf("%s: %v", name, err)
					}
				}
				if _, err := f.Find(t.Context(), Images, name); err == nil {
					t.Errorf("%s is there", name)
				}
			}
			put(listing("first"), "no time in it")
			taken("first")
			put(listing("new"), stamp(tuesday))
			taken("new")
			put(listing("bad"), stamp(monday))
			refused("bad", "signed at 2025-12-01T00:00:00Z")
			put(listing("bad"), "no time in it")
			refused("bad", "does not say when")
			f.restart(t) // it is remembered
			put(listing("bad"), stamp(monday))
			refused("bad")
			put(listing("as-new"), stamp(tuesday))
			taken("as-new")
			put(listing("bad"), stamp(tuesday.Add(time.Second)))
			taken("bad")
		})
	}
}

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/pull/pulltest"
)

// copies is a web server whose addresses end in paths.
type copies struct{}

func (copies) File(_ context.Context, at, path string, _ int64, _ func(done, total int64)) error {
	b, err := os.ReadFile(strings.TrimPrefix(at, "https://x.example"))
	if err != nil {
		return api.Errorf(api.KindNotFound, "cannot get %s: %w", at, err)
	}
	return os.WriteFile(path, b, 0o600)
}

func TestKernelsOfACatalog(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	content := vmlinux(true, banner, embeddedConfig(t, allBuiltin))
	file := put(t, filepath.Join(t.TempDir(), "vmlinux"), content)
	sum := sha256.Sum256(content)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	entry := func(name string, sources ...catalog.Source) catalog.Item {
		return catalog.Item{Catalog: "ours", Entry: catalog.Entry{Name: name, Sources: sources}}
	}
	from := func(url, digest string) catalog.Source {
		return catalog.Source{Kind: catalog.KindFile, File: &catalog.Download{URL: url, Digest: digest, SizeBytes: int64(len(content))}}
	}
	f.opt.Downloads = copies{}
	f.opt.Catalog = pulltest.Entries{
		entry("web", from("https://x.example"+file, digest)),
		entry("disk", from(file, digest)),
		entry("forged", from("https://x.example"+file, "sha256:"+strings.Repeat("0", 64)), catalog.Source{Kind: catalog.KindDebian, Debian: &catalog.Debian{Suite: "bookworm", Packages: []string{"linux"}}}),
		entry("gone", from("https://x.example/none", digest)),
		entry("strange", catalog.Source{Kind: "hologram"}, catalog.Source{Kind: catalog.KindFile, Arch: "pdp11", File: &catalog.Download{}}),
		entry("second", catalog.Source{Kind: "hologram"}, from(file, digest)),
	}
	for _, name := range []string{"web", "disk", "second"} {
		k, err := f.Resolve(t.Context(), name, "", nil)
		if err != nil || k.Name != name || k.Source["kind"] != "file" || k.Source["file"] != digest || k.Source["path"] != "" {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
		if again, err := f.Resolve(t.Context(), name, "always", nil); err != nil || again.ID != k.ID {
			t.Errorf("%s again: %+v, %v", name, again, err)
		}
	}
	for name, kind := range map[string]api.Kind{"forged": api.KindDenied, "gone": api.KindNotFound, "strange": api.KindUnsupported, "none": api.KindNotFound} {
		if k, err := f.Resolve(t.Context(), name, "", nil); api.KindOf(err) != kind {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
		f.NothingLeft(t)
	}
	entries, err := f.Catalog(t.Context(), false)
	pulltest.Must(t, err)
	for _, e := range entries {
		if (e.Unsupported != "") != (e.Name == "strange") || e.Local != slices.Contains([]string{"web", "disk", "second"}, e.Name) || e.Catalog != "ours" {
			t.Errorf("%+v", e)
		}
	}
}

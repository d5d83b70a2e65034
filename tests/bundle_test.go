package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

// An image goes into a bundle with its kernel, signed, and comes out of it on a
// host that has nothing: by its path, and by a catalog that trusts the key.
func TestABundleBringsItsImageToAHostThatHasNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "app.tar.zst")
	keys := exec.CommandContext(t.Context(), "minisign", "-G", "-W", "-p", dir+"/k.pub", "-s", dir+"/k.key")
	if out, err := keys.CombinedOutput(); err != nil {
		t.Fatalf("minisign: %v: %s", err, out)
	}
	var b api.Bundle
	h.json(&b, "image", "bundle", "debian-bookworm", "-o", path, "--with-kernel", "--sign-key", dir+"/k.key", "--json")
	if b.Path != path || b.Kernel == "" || b.Signature != path+".minisig" || len(b.Members) != 5 {
		t.Errorf("%+v", b)
	}
	if out, err := exec.CommandContext(t.Context(), "minisign", "-V", "-p", dir+"/k.pub", "-m", path).CombinedOutput(); err != nil {
		t.Errorf("minisign does not verify it: %v: %s", err, out)
	}
	h.fails(4, []string{"is there already", "--replace"}, "image", "bundle", "debian-bookworm", "-o", path)

	// On the same host: away, and back by the bundle.
	h.ok("image", "pull", path, "--name", "app")
	h.ok("image", "delete", "app", "--yes")
	h.fails(3, nil, "image", "show", "app")
	h.ok("image", "pull", path, "--name", "app")
	h.ok("vm", "run", "--rm", "--image", "app", "--pull", "never", "--", "true")

	// On a host with neither image nor kernel, from a catalog with a key.
	far := newEmptyHost(t)
	public, err := os.ReadFile(dir + "/k.pub")
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Split(string(public), "\n")[1]
	catalog := map[string]any{
		"catalog_version": 1,
		"images": []any{map[string]any{"name": "app", "description": "the app", "sources": []any{
			map[string]any{"kind": "bundle", "url": "app.tar.zst", "digest": b.Digest, "size_bytes": b.SizeBytes},
		}}},
	}
	text, err := json.Marshal(catalog)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "catalog.json")
	if err := os.WriteFile(at, text, 0o644); err != nil {
		t.Fatal(err)
	}
	far.writeConfig("[[catalogs]]\nname = \"ours\"\nlocation = \"" + at + "\"\npublic_key = \"" + key + "\"\n")
	r := far.fails(7, []string{"app"}, "image", "pull", "app")
	if !strings.Contains(r.stderr, "not signed") {
		t.Errorf("an unsigned catalog: %v", r)
	}
	if out, err := exec.CommandContext(t.Context(), "minisign", "-S", "-s", dir+"/k.key", "-m", at).CombinedOutput(); err != nil {
		t.Fatalf("minisign: %v: %s", err, out)
	}
	var entries []api.CatalogEntry
	far.json(&entries, "image", "catalog", "--refresh", "--json")
	if last := entries[len(entries)-1]; last.Name != "app" || last.Catalog != "ours" || last.Kind != "bundle" || last.Local {
		t.Errorf("catalog: %+v", entries)
	}
	r = far.ok("vm", "run", "--rm", "--image", "app", "--", "sh", "-c", "uname -r; . /etc/os-release; echo $VERSION_CODENAME")
	if !strings.Contains(r.stdout, "cloud-amd64") || !strings.Contains(r.stdout, "bookworm") {
		t.Errorf("%v", r)
	}
	var images []api.Image
	far.json(&images, "image", "list", "--json")
	if len(images) != 1 || images[0].Kind != "bundle" || images[0].Reference != "app" || images[0].Kernel == b.Kernel || !strings.HasPrefix(images[0].Kernel, b.Kernel+"-") {
		t.Errorf("a bundle's kernel does not take a name of banger's catalog: %+v", images)
	}
}

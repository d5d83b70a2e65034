// Package banger_test holds the rules of the house that a machine can check.
package banger_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/bangervm/banger/"

// arrow forbids packages under From to import packages under To. A prefix
// ending in a slash means everything below; otherwise it is one package.
type arrow struct {
	from, to string
	reason   string
}

// nouns never import each other: each declares the methods it needs as a small
// interface, and the daemon's wiring joins them.
func arrows() []arrow {
	nouns := []string{"internal/vm", "internal/image", "internal/kernel", "internal/network", "internal/workspace", "internal/session"}
	var all []arrow
	for _, a := range nouns {
		for _, b := range nouns {
			if a != b {
				all = append(all, arrow{from: a, to: b, reason: "nouns never import each other; declare an interface and let internal/daemon join them"})
			}
		}
	}
	return append(all,
		arrow{from: "api", to: "internal/", reason: "the wire types are public and stand alone"},
		arrow{from: "guestapi", to: "internal/", reason: "what host and guest say to each other stands alone"},
		arrow{from: "client", to: "internal/", reason: "the client is public: only api"},
		arrow{from: "internal/operation", to: "internal/vm", reason: "long work knows no noun"},
		arrow{from: "internal/operation", to: "internal/image", reason: "long work knows no noun"},
		arrow{from: "internal/operation", to: "internal/kernel", reason: "long work knows no noun"},
		arrow{from: "internal/bundle", to: "internal/", reason: "a format of files stands alone"},
		arrow{from: "internal/signature", to: "internal/", reason: "a format of files stands alone"},
		arrow{from: "internal/fetch", to: "internal/", reason: "it knows neither what it fetches nor whom to trust"},
		arrow{from: "internal/catalog", to: "internal/image", reason: "a catalog says where things come from, not how they are made"},
		arrow{from: "internal/catalog", to: "internal/kernel", reason: "a catalog says where things come from, not how they are made"},
		arrow{from: "internal/catalog", to: "internal/pull", reason: "a catalog says where things come from, not how they are made"},
		arrow{from: "internal/oci", to: "internal/image", reason: "registries and archives know no noun"},
		arrow{from: "internal/oci", to: "internal/store", reason: "registries and archives know no record"},
		arrow{from: "internal/oci", to: "internal/config", reason: "the wiring hands the settings over"},
		arrow{from: "internal/store", to: "internal/", reason: "records know nothing of those who use them"},
		arrow{from: "internal/guest", to: "internal/", reason: "the guest must stay small: guestapi and api only"},
		arrow{from: "internal/vmm/", to: "internal/vm", reason: "a driver knows files and sizes, no VM record"},
		arrow{from: "internal/vmm/", to: "internal/store", reason: "a driver knows files and sizes, no VM record"},
		arrow{from: "internal/keeper", to: "internal/store", reason: "a keeper outlives the daemon and must not open its database"},
		arrow{from: "internal/keeper", to: "internal/daemon", reason: "a keeper outlives the daemon"},
		arrow{from: "internal/layers", to: "internal/image", reason: "layers are streams: no image record, no registry"},
		arrow{from: "internal/layers", to: "internal/store", reason: "layers are streams: no image record, no registry"},
		arrow{from: "internal/ext4", to: "internal/", reason: "a file system knows nothing of where its files come from"},
		arrow{from: "internal/cli", to: "internal/vm", reason: "the command line only renders what the daemon says"},
		arrow{from: "internal/cli", to: "internal/store", reason: "the command line only renders what the daemon says"},
		arrow{from: "internal/cli", to: "internal/image", reason: "the command line only renders what the daemon says"},
		arrow{from: "internal/cli/ui", to: "internal/daemon", reason: "ui prints"},
		arrow{from: "internal/seed", to: "internal/image", reason: "a seed is a folder or an archive made into a file system; whose it is, it does not know"},
		arrow{from: "internal/seed", to: "internal/store", reason: "a seed is a folder or an archive made into a file system; whose it is, it does not know"},
		arrow{from: "internal/sshkey", to: "internal/", reason: "a key is a file and its public half"},
		arrow{from: "internal/host/", to: "internal/vm", reason: "the outside world knows no VM"},
		arrow{from: "internal/host/", to: "internal/store", reason: "the outside world knows no record"},
		arrow{from: "internal/layout", to: "internal/", reason: "names of files depend on nothing"},
	)
}

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Name       string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Name", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func under(pkg, prefix string) bool {
	if strings.HasSuffix(prefix, "/") {
		return strings.HasPrefix(pkg, prefix)
	}
	return pkg == prefix
}

func TestArrows(t *testing.T) {
	t.Parallel()
	rules := arrows()
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			for _, r := range rules {
				if under(from, r.from) && under(to, r.to) {
					t.Errorf("%s imports %s: %s", from, to, r.reason)
				}
			}
		}
	}
}

func TestAPIImportsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.ImportPath != module+"api" && p.ImportPath != module+"guestapi" {
			continue
		}
		for _, imp := range p.Imports {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !(p.ImportPath == module+"guestapi" && imp == module+"api") {
				t.Errorf("%s imports %s: wire types depend on the standard library only", p.ImportPath, imp)
			}
		}
	}
}

// Every package says in its package comment what it owns.
func TestEveryPackageHasAComment(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		found := false
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil && (strings.HasPrefix(f.Doc.Text(), "Package ") || strings.HasPrefix(f.Doc.Text(), "Command ")) {
				found = true
			}
		}
		if !found {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// A folder named for nothing collects everything.
func TestNoRoomIsNamedForNothing(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "bin", "testdata":
				return filepath.SkipDir
			case "util", "utils", "common", "helpers", "misc":
				t.Errorf("%s: name it for what it holds", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

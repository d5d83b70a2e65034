package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/internal/cli"
)

var update = flag.Bool("update", false, "write docs/reference")

// TestReferenceIsUpToDate: docs/reference says what the commands say.
func TestReferenceIsUpToDate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "..", "docs", "reference")
	want := pages(cli.NewCommand())
	if *update {
		if err := write(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%v; run go run ./internal/cli/gendocs", err)
			continue
		}
		if diff := cmp.Diff(text, string(got)); diff != "" {
			t.Errorf("%s is out of date; run go run ./internal/cli/gendocs\n%s", name, diff)
		}
	}
	old, err := filepath.Glob(filepath.Join(dir, "banger*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if _, ok := want[filepath.Base(path)]; !ok {
			t.Errorf("%s is of no command", path)
		}
	}
}

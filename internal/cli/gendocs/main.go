// Command gendocs writes docs/reference from the commands and the tables of the
// API: go run ./internal/cli/gendocs, in the root of the repository.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/bangervm/banger/internal/cli"
)

func main() {
	dir := filepath.Join("docs", "reference")
	if err := write(dir, pages(cli.NewCommand())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write puts the pages into dir, and removes pages of commands that are gone.
func write(dir string, pages map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "banger*.md"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if _, stays := pages[filepath.Base(path)]; !stays {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

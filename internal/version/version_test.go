package version

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBuildIsTheSameForACopy(t *testing.T) {
	t.Parallel()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var ids []string
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, exe, 0o700); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, build(path))
	}
	ids = append(ids, Current().Build)
	for _, id := range ids {
		if len(id) != 12 || id != ids[0] {
			t.Errorf("builds %v: want equal ids of 12 digits", ids)
		}
	}
}

func TestBuildWithoutNote(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"text": "#!/bin/sh\n", "cut": "\x7fELF\x02\x01\x01"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
		if id := build(path); len(id) != 12 {
			t.Errorf("build of %s = %q", name, id)
		}
	}
	if id := build(filepath.Join(dir, "missing")); id != "unknown" {
		t.Errorf("build of a missing file = %q", id)
	}
}

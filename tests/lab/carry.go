package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// carry is what a lab host finds in /lab/in:
//
//	bin/       banger, lab, firecracker, jailer
//	pkg/PATH/  the test binary PATH.test of each package, beside its testdata
//	NAME       what -in named
type carry struct {
	packages []string // ./internal/vmm/qemu
	files    []string // PATH or PATH:NAME
}

// disk makes the disk of it at path.
func (c carry) disk(ctx context.Context, cc cache, path, tree string) error {
	bin := filepath.Join(tree, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fc, err := firecracker(ctx, cc)
	if err != nil {
		return err
	}
	copies := map[string]string{"bin/banger": "bin/banger", self: "bin/lab"}
	fcBinary := filepath.Join(fc, "firecracker")
	if own := os.Getenv("BANGER_LAB_FIRECRACKER"); own != "" {
		fcBinary = own
	}
	copies[fcBinary] = "bin/firecracker"
	if jailer := filepath.Join(fc, "jailer"); exists(jailer) {
		copies[jailer] = "bin/jailer"
	}
	for _, f := range c.files {
		from, to, named := strings.Cut(f, ":")
		if !named {
			to = filepath.Base(from)
		}
		if !filepath.IsLocal(to) {
			return fmt.Errorf("cannot carry %s in: %q is no name below /lab/in", from, to)
		}
		copies[from] = to
	}
	for from, to := range copies {
		to = filepath.Join(tree, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := output(ctx, "cp", "-aL", "--reflink=auto", from, to); err != nil {
			return fmt.Errorf("cannot carry %s in: %w", from, err)
		}
	}
	for _, p := range c.packages {
		if err := carryTests(ctx, p, tree); err != nil {
			return err
		}
	}
	size, err := treeBytes(tree)
	if err != nil {
		return err
	}
	return makeDisk(ctx, path, tree, size+size/8+(64<<20))
}

// carryTests compiles a package's tests.
func carryTests(ctx context.Context, pkg, tree string) error {
	dir := filepath.Join(tree, packageDir(pkg))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := output(ctx, "env", "CGO_ENABLED=0", "go", "test", "-c", "-o", filepath.Join(dir, testBinary(pkg)), pkg); err != nil {
		return fmt.Errorf("cannot compile the tests of %s: %w", pkg, err)
	}
	if data := filepath.Join(pkg, "testdata"); exists(data) {
		return output(ctx, "cp", "-a", data, dir)
	}
	return nil
}

// packageDir and testBinary are where a package's tests lie below /lab/in.
func packageDir(pkg string) string { return path.Join("pkg", path.Clean(pkg)) }
func testBinary(pkg string) string { return path.Base(path.Clean(pkg)) + ".test" }

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func treeBytes(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		n += fi.Size() + 4096
		return nil
	})
	return n, err
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bangervm/banger/internal/layout"
)

// store is a prepared BANGER_ROOT with the default image and kernel in it.
type store struct {
	root   string
	disk   string // an ext4 with it, for the lab host
	kernel layout.KernelDir
}

// dataBytes is the size of the lab host's disk /lab; it is sparse.
const dataBytes = 16 << 30

// prepareStore gives a store as this build of banger makes it. Its key is what
// decides about its content: recipes and boot modules, and the schema. Another
// schema alone is no reason to build anew what an older store holds.
func prepareStore(ctx context.Context, c cache) (store, error) {
	recipe, err := keyOf(nil, "internal/image/recipe.go", "internal/kernel/build.go", "internal/kernel/bootplan.go")
	if err != nil {
		return store{}, err
	}
	schema, err := keyOf(nil, "internal/store/schema.go")
	if err != nil {
		return store{}, err
	}
	key := recipe + "-" + schema
	dir, err := c.entry(ctx, "store", key, func(ctx context.Context, dir string) error {
		older, err := filepath.Glob(filepath.Join(c.dir, "store-"+recipe+"-*"))
		if err != nil {
			return err
		}
		root := filepath.Join(dir, "root")
		for _, o := range older {
			if o == dir {
				continue
			}
			if err := migrateStore(ctx, filepath.Join(o, "root"), root); err == nil {
				return clearStore(root)
			}
			if err := os.RemoveAll(root); err != nil {
				return err
			}
		}
		err = storeBanger(ctx, root, "image", "pull", "debian-bookworm", "--progress", "plain")
		if err == nil {
			err = storeBanger(ctx, root, "kernel", "pull", "debian-bookworm-cloud", "--progress", "plain")
		}
		if stop := storeBanger(ctx, root, "daemon", "stop"); err == nil {
			err = stop
		}
		if err != nil {
			return err
		}
		return clearStore(root)
	})
	if err != nil {
		return store{}, err
	}
	disk, err := storeDisk(ctx, c, key, dir)
	if err != nil {
		return store{}, err
	}
	root := filepath.Join(dir, "root")
	kernel, err := storeKernel(root)
	return store{root: root, disk: disk, kernel: kernel}, err
}

// storeBanger runs banger with the store as its root.
func storeBanger(ctx context.Context, root string, args ...string) error {
	cmd := exec.CommandContext(ctx, "bin/banger", args...)
	cmd.Env = append(withoutBanger(os.Environ()), "BANGER_ROOT="+root)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// migrateStore makes a store out of an older one: image and kernel by hard link,
// the database by copy, which the daemon brings to its schema.
func migrateStore(ctx context.Context, from, root string) error {
	if err := output(ctx, "cp", "-al", from, root); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(from, "state", "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || !fi.Mode().IsRegular() {
			continue
		}
		copied := filepath.Join(root, "state", filepath.Base(f))
		if err := output(ctx, "cp", "--remove-destination", "-a", f, copied); err != nil {
			return err
		}
	}
	err = storeBanger(ctx, root, "image", "show", "debian-bookworm")
	if stop := storeBanger(ctx, root, "daemon", "stop"); err == nil {
		err = stop
	}
	return err
}

// clearStore removes what is only of the daemon that made the store.
func clearStore(root string) error {
	for _, gone := range []string{"run", "cache", "state/vms", "state/staging", "state/daemon.lock"} {
		if err := os.RemoveAll(filepath.Join(root, gone)); err != nil {
			return err
		}
	}
	return nil
}

// storeKernel is the first kernel of a BANGER_ROOT.
func storeKernel(root string) (layout.KernelDir, error) {
	l, err := layout.Resolve(func(k string) string { return map[string]string{"BANGER_ROOT": root}[k] }, os.Getuid())
	if err != nil {
		return layout.KernelDir{}, err
	}
	kernels, err := os.ReadDir(l.Kernels())
	if err != nil || len(kernels) == 0 {
		return layout.KernelDir{}, fmt.Errorf("cannot find a kernel in %s: %w", l.Kernels(), err)
	}
	return l.Kernel(kernels[0].Name()), nil
}

// storeDisk makes the disk of it, apart: a root is what developers look into.
func storeDisk(ctx context.Context, c cache, key, dir string) (string, error) {
	disk, err := c.entry(ctx, "data", key, func(ctx context.Context, tmp string) error {
		tree := filepath.Join(tmp, "tree")
		for _, d := range []string{"in", "out", "tmp"} {
			if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
				return err
			}
		}
		if err := output(ctx, "cp", "-al", filepath.Join(dir, "root"), tree); err != nil {
			return err
		}
		if err := makeDisk(ctx, filepath.Join(tmp, "data.ext4"), tree, dataBytes); err != nil {
			return err
		}
		return os.RemoveAll(tree)
	})
	return filepath.Join(disk, "data.ext4"), err
}

// makeDisk makes a sparse ext4 that holds the tree.
func makeDisk(ctx context.Context, path, tree string, bytes int64) error {
	return output(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-d", tree,
		"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", path, fmt.Sprintf("%dk", bytes>>10))
}

// output runs a tool; what it says is told when it fails.
func output(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func withoutBanger(env []string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "BANGER_") {
			out = append(out, kv)
		}
	}
	return out
}

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
	disk   string // an ext4 with the root, for the lab host
	kernel layout.KernelDir
}

// dataBytes is the size of the lab host's disk /lab; it is sparse.
const dataBytes = 16 << 30

// prepareStore gives the store of this build of banger.
func prepareStore(ctx context.Context, c cache) (store, error) {
	key, err := keyOf([]string{"1"}, "internal/image", "internal/kernel", "internal/ext4", "internal/store/schema.go", "tests/lab/store.go")
	if err != nil {
		return store{}, err
	}
	dir, err := c.entry(ctx, "store", key, func(ctx context.Context, dir string) error {
		root := filepath.Join(dir, "root")
		banger := func(args ...string) error {
			cmd := exec.CommandContext(ctx, "bin/banger", args...)
			cmd.Env = append(withoutBanger(os.Environ()), "BANGER_ROOT="+root)
			cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
			return cmd.Run()
		}
		err := banger("vm", "run", "--rm", "--network", "none", "--progress", "plain", "--", "true")
		if stop := banger("daemon", "stop"); err == nil {
			err = stop
		}
		if err != nil {
			return err
		}
		for _, gone := range []string{"run", "cache", "state/vms", "state/staging", "state/daemon.lock"} {
			if err := os.RemoveAll(filepath.Join(root, gone)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store{}, err
	}
	disk, err := storeDisk(ctx, c, key, dir)
	if err != nil {
		return store{}, err
	}
	l, err := layout.Resolve(func(k string) string { return map[string]string{"BANGER_ROOT": filepath.Join(dir, "root")}[k] }, os.Getuid())
	if err != nil {
		return store{}, err
	}
	kernels, err := os.ReadDir(l.Kernels())
	if err != nil || len(kernels) == 0 {
		return store{}, fmt.Errorf("cannot find a kernel in the lab's store %s: %w", l.Kernels(), err)
	}
	return store{disk: disk, kernel: l.Kernel(kernels[0].Name())}, nil
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

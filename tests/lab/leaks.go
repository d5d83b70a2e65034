package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// leaks creates and deletes machines, four at a time, and counts what is there
// afterwards that was not before: processes, links, mounts, loop devices, device
// mappings, cgroups, files.
func (b *bencher) leaks(driver string) error {
	const atOnce = 4
	// What stays for good (a daemon, logs) comes into being with the first machine.
	if err := b.createAndDelete(driver); err != nil {
		return err
	}
	before, err := inventory(b.store)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for range b.creations {
		g.Go(func() error { return b.createAndDelete(driver) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	after, err := inventory(b.store)
	if err != nil {
		return err
	}
	left := slices.Sorted(maps.Keys(after))
	left = slices.DeleteFunc(left, func(thing string) bool { return before[thing] })
	for _, thing := range left {
		say("left behind: %s", thing)
	}
	b.out.add("leaks-"+driver, float64(len(left)))
	b.out.add("leaks-"+driver+"-created", float64(b.creations))
	return nil
}

func (b *bencher) createAndDelete(driver string) error {
	id, err := b.banger(append([]string{"vm", "create", "-q"}, size(driver)...)...)
	if err != nil {
		return err
	}
	_, err = b.banger("vm", "delete", "--force", strings.TrimSpace(id))
	return err
}

// inventory names what a machine could leave on this host.
func inventory(store string) (map[string]bool, error) {
	var mu sync.Mutex
	all := map[string]bool{}
	add := func(kind, name string) {
		mu.Lock()
		defer mu.Unlock()
		all[kind+" "+name] = true
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		line, err := os.ReadFile(p)
		if err != nil || len(line) == 0 { // gone, or the kernel's
			continue
		}
		text := strings.ReplaceAll(string(line), "\x00", " ")
		for _, ours := range []string{"keeper", "qemu-system", "firecracker", "jailer"} {
			if strings.Contains(text, ours) {
				add("process", fmt.Sprintf("%s %.100s", filepath.Base(filepath.Dir(p)), text))
			}
		}
	}
	for kind, pattern := range map[string]string{"link": "/sys/class/net/*", "loop": "/sys/block/loop*/loop", "dm": "/sys/block/dm-*", "file": "/dev/mapper/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			add(kind, n)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 {
			add("mount", f[4])
		}
	}
	for kind, dir := range map[string]string{"cgroup": "/sys/fs/cgroup", "file": store, "temporary file": "/lab/tmp", "run": "/run"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if kind != "cgroup" || d.IsDir() {
				add(kind, path)
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return all, nil
}

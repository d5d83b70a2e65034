package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// cacheLimit is how much the cache may hold, in bytes on the disk.
	cacheLimit = 6 << 30
	// cacheRest is how long an entry is kept after its last use, whatever the limit.
	cacheRest = 2 * time.Hour
)

// cache keeps what is expensive to make in folders named for their content:
// KIND-KEY, where the key is a digest of everything the content depends on.
type cache struct{ dir string }

func openCache() (cache, error) {
	dir := os.Getenv("BANGER_LAB_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return cache{}, fmt.Errorf("cannot find a folder for the lab's cache: %w; set BANGER_LAB_CACHE", err)
		}
		dir = filepath.Join(user, "banger-lab")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return cache{}, err
	}
	return cache{dir}, os.MkdirAll(dir, 0o755)
}

// entry gives the folder of that kind and key; what is not there, fill makes.
// Others that want the same meanwhile wait.
func (c cache) entry(ctx context.Context, kind, key string, fill func(ctx context.Context, dir string) error) (string, error) {
	unlock, err := c.lock(kind)
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(c.dir, kind+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		return dir, os.Chtimes(dir, now, now)
	}
	if err := c.prune(); err != nil {
		return "", err
	}
	say("making %s: kept in %s", kind, dir)
	began := time.Now()
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	if err := fill(ctx, tmp); err != nil {
		return "", errors.Join(fmt.Errorf("cannot make %s: %w", kind, err), os.RemoveAll(tmp))
	}
	say("made %s in %.1f s", kind, time.Since(began).Seconds())
	return dir, os.Rename(tmp, dir)
}

// lock waits for the kind's lock; a process that dies gives it back.
func (c cache) lock(kind string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(c.dir, kind+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot lock the lab's cache: %w", err), f.Close())
	}
	return func() { f.Close() }, nil
}

// prune deletes the entries longest not used until the rest is within the limit.
func (c cache) prune() error {
	type old struct {
		path string
		used time.Time
		size int64
	}
	dirs, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var all []old
	var total int64
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		o := old{path: filepath.Join(c.dir, d.Name())}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		o.used = fi.ModTime()
		if o.size, err = diskUsage(o.path); err != nil {
			return err
		}
		total += o.size
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b old) int { return cmp.Compare(a.used.UnixNano(), b.used.UnixNano()) })
	for _, o := range all {
		if total <= cacheLimit || time.Since(o.used) < cacheRest {
			return nil
		}
		if err := os.RemoveAll(o.path); err != nil {
			return err
		}
		total -= o.size
	}
	return nil
}

func diskUsage(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			n += st.Blocks * 512
		}
		return nil
	})
	return n, err
}

// keyOf is a digest of words and files. A folder stands for its Go files that
// are no tests.
func keyOf(words []string, files ...string) (string, error) {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%q\n", w)
	}
	for _, name := range files {
		matches := []string{name}
		if fi, err := os.Stat(name); err != nil {
			return "", err
		} else if fi.IsDir() {
			if matches, err = filepath.Glob(filepath.Join(name, "*.go")); err != nil {
				return "", err
			}
		}
		for _, m := range matches {
			if strings.HasSuffix(m, "_test.go") {
				continue
			}
			f, err := os.Open(m)
			if err != nil {
				return "", err
			}
			_, err = io.Copy(h, f)
			if err := errors.Join(err, f.Close()); err != nil {
				return "", err
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

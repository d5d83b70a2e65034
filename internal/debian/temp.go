package debian

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bangervm/banger/api"
)

// tempPrefix marks our build folders; RemoveTemp touches nothing else.
const tempPrefix = "banger-build-"

// TempDir names a new build folder, which it does not create: in TMPDIR, else
// /var/tmp, which is on a disk where /tmp may be memory. Without root, packages
// are unpacked by another user (the first of our subuid range), so the folder
// lies where that user gets to, and not among our own.
func TempDir() string {
	base := os.Getenv("TMPDIR")
	if base == "" || !passable(base) {
		base = "/var/tmp"
		if fi, err := os.Stat(base); err != nil || !fi.IsDir() {
			base = "/tmp"
		}
	}
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return filepath.Join(base, tempPrefix+hex.EncodeToString(b))
}

// passable says whether every user may pass through dir to what is below.
func passable(dir string) bool {
	if os.Geteuid() == 0 {
		return true
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for {
		fi, err := os.Stat(abs)
		if err != nil || fi.Mode().Perm()&0o001 == 0 {
			return false
		}
		if abs == "/" {
			return true
		}
		abs = filepath.Dir(abs)
	}
}

// RemoveTemp removes a build folder and all in it, also what belongs to the
// users of our subuid range. A missing one is success.
func RemoveTemp(ctx context.Context, dir string) error {
	if !strings.HasPrefix(filepath.Base(dir), tempPrefix) || !filepath.IsAbs(dir) {
		return api.Errorf(api.KindInternal, "cannot remove build folder %q: not one of ours", dir)
	}
	return RemoveTree(ctx, dir)
}

// RemoveTree removes a folder and all in it, also what belongs to the users of
// our subuid range, as far as those get there. A missing one is success.
func RemoveTree(ctx context.Context, dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || os.Geteuid() == 0 {
		return wrapRemove(dir, err)
	}
	// What another user owns, only that user can empty; the folders then left
	// are in a folder of ours and go from there. Ours they may pass, not read.
	foreign := []string{dir}
	if entries, rerr := os.ReadDir(dir); rerr == nil && owned(dir) {
		foreign = nil
		for _, e := range entries {
			if e.IsDir() {
				foreign = append(foreign, filepath.Join(dir, e.Name()))
			}
		}
	}
	for _, f := range foreign {
		cmd := exec.CommandContext(ctx, "mmdebstrap", "--unshare-helper", "find", f, "-mindepth", "1", "-delete")
		cmd.Env, cmd.Dir = environment(os.TempDir()), "/"
		if out, cerr := cmd.CombinedOutput(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %s", cerr, strings.TrimSpace(string(out))))
		}
	}
	if rerr := os.RemoveAll(dir); rerr != nil {
		return wrapRemove(dir, errors.Join(rerr, err))
	}
	return nil
}

// owned says whether a folder is ours.
func owned(dir string) bool {
	fi, err := os.Lstat(dir)
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

func wrapRemove(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot remove folder %s: %w", dir, err)
}

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
	// What the other users own, only they can empty. What is ours among it they
	// cannot, but then it is empty and goes from here.
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--unshare-helper", "find", dir, "-mindepth", "1", "-delete")
	cmd.Env, cmd.Dir = environment(os.TempDir()), "/"
	out, cerr := cmd.CombinedOutput()
	if err := os.RemoveAll(dir); err != nil {
		if cerr != nil {
			cerr = fmt.Errorf("%w: %s", cerr, strings.TrimSpace(string(out)))
		}
		return wrapRemove(dir, errors.Join(err, cerr))
	}
	return nil
}

func wrapRemove(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot remove folder %s: %w", dir, err)
}

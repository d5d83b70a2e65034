package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// managed is the comment of the one line of authorized_keys that is ours.
const managed = "banger-managed"

// maxAuthorized is how much of authorized_keys is read, in bytes.
const maxAuthorized = 4 << 20

// authorize puts the user's key into the home's authorized_keys and its
// fingerprint into stamp, beside the home. Our own line is renewed where it
// differs; all others stay as they are. Both files are replaced whole, the stamp
// last, so that a start that was cut off is done again by the next.
func authorize(home, stamp string, key *guestapi.AuthorizedKey) error {
	if key == nil {
		return nil
	}
	if strings.ContainsAny(key.Key+key.Fingerprint, "\r\n\x00") {
		return errors.New("cannot authorise the ssh key: it holds a line break")
	}
	dir := filepath.Join(home, ".ssh")
	if err := ensureDir(dir, 0o700); err != nil {
		return fmt.Errorf("cannot authorise the ssh key: %w", err)
	}
	// A dotfile manager's link is followed, but not out of the home, which is
	// not yet where it will be.
	path, err := realFile(home, "/.ssh/authorized_keys")
	if err == nil {
		err = authorizeIn(path, stamp, key)
	}
	if err == nil {
		err = closeToOthers(dir, filepath.Dir(path), path)
	}
	if err != nil {
		return fmt.Errorf("cannot authorise the ssh key: %w", err)
	}
	return nil
}

func authorizeIn(path, stamp string, key *guestapi.AuthorizedKey) error {
	old, err := readRegular(path, maxAuthorized+1)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(old) > maxAuthorized {
		return fmt.Errorf("%s is larger than %d bytes", path, maxAuthorized)
	}
	next := authorized(old, key.Key)
	if !bytes.Equal(old, next) {
		if err := replaceFile(path, next, 0o600); err != nil {
			return err
		}
	}
	said := []byte(key.Fingerprint + "\n")
	if have, err := readRegular(stamp, 1<<10); err == nil && bytes.Equal(have, said) {
		return nil
	}
	return replaceFile(stamp, said, 0o600)
}

// authorized is the file with our line in it once, the others untouched.
func authorized(old []byte, key string) []byte {
	line := key + " " + managed + "\n"
	var b bytes.Buffer
	there := false
	for l := range bytes.Lines(old) {
		f := bytes.Fields(l)
		if len(f) == 0 || f[0][0] == '#' || string(f[len(f)-1]) != managed {
			b.Write(l)
			continue
		}
		if string(l) == line && !there {
			there = true
			b.Write(l)
		}
	}
	if !there {
		if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
			b.WriteByte('\n')
		}
		b.WriteString(line)
	}
	return b.Bytes()
}

// replaceFile writes a file aside and renames it into place, with the owner and
// mode of the one that was there.
func replaceFile(path string, data []byte, mode uint32) error {
	tmp := path + ".banger"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err == nil {
		mode = st.Mode & 0o777
		err = os.Lchown(tmp, int(st.Uid), int(st.Gid))
	} else if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err == nil {
		err = unix.Chmod(tmp, mode)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

// closeToOthers takes from others what ssh does not allow them: to write.
func closeToOthers(paths ...string) error {
	for _, p := range paths {
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		if perm := fi.Mode().Perm(); perm&0o022 != 0 {
			if err := os.Chmod(p, perm&^0o022); err != nil {
				return err
			}
		}
	}
	return nil
}

// realFile follows the links of one file within the home. What leads elsewhere
// is refused; a link to nothing names the file to make.
func realFile(home, path string) (string, error) {
	for range 40 {
		dir, err := filepath.EvalSymlinks(filepath.Join(home, filepath.Dir(path)))
		if err != nil {
			return "", err
		}
		if dir != home && !strings.HasPrefix(dir, home+"/") {
			return "", fmt.Errorf("%s leads out of the home", path)
		}
		at := filepath.Join(dir, filepath.Base(path))
		link, err := os.Readlink(at)
		if err != nil { // no link, or nothing at all
			return at, nil
		}
		if rest, ok := strings.CutPrefix(link, homePath+"/"); ok {
			path = "/" + rest
			continue
		}
		if filepath.IsAbs(link) {
			return "", fmt.Errorf("%s leads out of the home", path)
		}
		if path, err = filepath.Rel(home, filepath.Join(dir, link)); err != nil {
			return "", err
		}
		if path == ".." || strings.HasPrefix(path, "../") {
			return "", fmt.Errorf("a link leads out of the home")
		}
		path = "/" + path
	}
	return "", unix.ELOOP
}

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// maxAccounts is how much of passwd or group is read, in bytes.
const maxAccounts = 4 << 20

// maxGroups is how many supplementary groups a user gets at most.
const maxGroups = 1024

// account is whom a command runs as.
type account struct {
	name   string // empty when passwd does not know the id
	uid    uint32
	gid    uint32
	groups []uint32
	home   string
	shell  string
}

// findAccount resolves "user", "uid", "user:group" and so on by the files
// under etc. An empty spec is root. With a group of its own the user gets no
// supplementary ones, as in Docker.
func findAccount(etc, spec string) (account, error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	passwd, err := readAccounts(etc + "/passwd")
	if err != nil {
		return account{}, err
	}
	acc, ok := lookupPasswd(passwd, user)
	if !ok {
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil || uid == 1<<32-1 {
			return account{}, api.Errorf(api.KindInvalid, "cannot find user %q in the guest", user)
		}
		acc = account{uid: uint32(uid), home: "/"}
		if uid == 0 {
			acc.name, acc.home = "root", "/root"
		}
	}
	groups, err := readAccounts(etc + "/group")
	if err != nil {
		return account{}, err
	}
	if !hasGroup {
		acc.groups = lookupGroups(groups, acc.name, acc.gid)
		return acc, nil
	}
	gid, ok := lookupGroup(groups, group)
	if !ok {
		n, err := strconv.ParseUint(group, 10, 32)
		if err != nil || n == 1<<32-1 {
			return account{}, api.Errorf(api.KindInvalid, "cannot find group %q in the guest", group)
		}
		gid = uint32(n)
	}
	acc.gid = gid
	acc.groups = []uint32{gid}
	return acc, nil
}

// readAccounts reads a file of the image with bounds: it may be missing, but
// not be a device or a pipe.
func readAccounts(path string) ([]byte, error) {
	b, err := readRegular(path, maxAccounts)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "cannot look up users in the guest: %w", err)
	}
	return b, nil
}

// readRegular reads at most limit bytes of a regular file.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// fields yields the lines of an account file with at least n fields.
func fields(data []byte, n int) func(yield func([][]byte) bool) {
	return func(yield func([][]byte) bool) {
		for line := range bytes.Lines(data) {
			line = bytes.TrimRight(line, "\r\n")
			if len(line) == 0 || line[0] == '#' {
				continue
			}
			f := bytes.Split(line, []byte(":"))
			if len(f) < n || len(f[0]) == 0 {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

// lookupPasswd finds user by name, else by id.
func lookupPasswd(data []byte, user string) (account, bool) {
	var byID account
	found := false
	for f := range fields(data, 7) {
		isName := string(f[0]) == user
		if !isName && (found || string(f[2]) != user) {
			continue
		}
		uid, err1 := strconv.ParseUint(string(f[2]), 10, 32)
		gid, err2 := strconv.ParseUint(string(f[3]), 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		acc := account{name: string(f[0]), uid: uint32(uid), gid: uint32(gid), home: string(f[5]), shell: string(f[6])}
		if !strings.HasPrefix(acc.home, "/") {
			acc.home = "/"
		}
		if isName {
			return acc, true
		}
		byID, found = acc, true
	}
	return byID, found
}

// lookupGroup finds a group's id by name or, in numbers, by id.
func lookupGroup(data []byte, group string) (uint32, bool) {
	for f := range fields(data, 3) {
		if string(f[0]) != group {
			continue
		}
		if gid, err := strconv.ParseUint(string(f[2]), 10, 32); err == nil {
			return uint32(gid), true
		}
	}
	return 0, false
}

// lookupGroups gives the groups that list the user, its own one first.
func lookupGroups(data []byte, user string, own uint32) []uint32 {
	groups := []uint32{own}
	if user == "" {
		return groups
	}
	seen := map[uint32]bool{own: true}
	for f := range fields(data, 4) {
		gid, err := strconv.ParseUint(string(f[2]), 10, 32)
		if err != nil || seen[uint32(gid)] {
			continue
		}
		for m := range bytes.SplitSeq(f[3], []byte(",")) {
			if string(bytes.TrimSpace(m)) == user {
				seen[uint32(gid)] = true
				groups = append(groups, uint32(gid))
				break
			}
		}
		if len(groups) == maxGroups {
			break
		}
	}
	return groups
}

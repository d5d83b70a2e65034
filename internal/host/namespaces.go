package host

import (
	"bufio"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/bangervm/banger/api"
)

// minSubIDs is what an image build maps: all ids that a Debian system uses.
const minSubIDs = 65536

// SubIDs reports whether the user has a range of at least 65,536 subordinate
// user and group ids, which a rootless image build needs. The error says what is
// missing and has the command that adds it as hint. Root needs none.
func (h *Real) SubIDs(uid int) error {
	if uid == 0 {
		return nil
	}
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	for file, flag := range map[string]string{"etc/subuid": "--add-subuids", "etc/subgid": "--add-subgids"} {
		if h.subRange(file, name, uid) < minSubIDs {
			return api.Errorf(api.KindUnavailable, "cannot map the ids of an image: %s gives user %s no range of %d ids", h.file(file), name, minSubIDs).
				WithHint("sudo usermod %s 100000-165535 %s", flag, name)
		}
	}
	return nil
}

// subRange is the largest range that a file like /etc/subuid gives the user;
// see subuid(5).
func (h *Real) subRange(file, name string, uid int) int64 {
	f, err := os.Open(h.file(file))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	var largest int64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		p := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(p) != 3 || p[0] != name && p[0] != strconv.Itoa(uid) {
			continue
		}
		if n, err := strconv.ParseInt(p[2], 10, 64); err == nil {
			largest = max(largest, n)
		}
	}
	return largest
}

// UserNamespaces reports, with an error for people, that this kernel's settings
// keep an ordinary user from making user namespaces.
func (h *Real) UserNamespaces() error {
	for _, s := range []struct{ file, bad, fix string }{
		{"proc/sys/user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=15000"},
		{"proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"},
		{"proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		data, err := os.ReadFile(h.file(s.file))
		if err != nil {
			continue // a kernel without the setting does not restrict
		}
		if strings.TrimSpace(string(data)) == s.bad {
			return api.Errorf(api.KindUnavailable, "cannot make user namespaces: %s is %s", h.file(s.file), s.bad).WithHint("%s", s.fix)
		}
	}
	if _, err := os.Stat(h.file("proc/self/ns/user")); err != nil {
		return api.Errorf(api.KindUnsupported, "cannot make user namespaces: this kernel has none")
	}
	return nil
}

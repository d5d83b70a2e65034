package host

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/bangervm/banger/api"
	"golang.org/x/sys/unix"
)

// Real is the machine we run on. Its methods may be used from several
// goroutines.
type Real struct {
	root string // where /proc and /etc are found: "/" outside tests
	env  func(string) string
}

// New looks at this machine; getenv is os.Getenv.
func New(getenv func(string) string) *Real { return &Real{root: "/", env: getenv} }

func (h *Real) file(name string) string { return filepath.Join(h.root, name) }

// CPUs that this process may use.
func (h *Real) CPUs() int { return runtime.NumCPU() }

// MemoryTotal is the machine's memory in bytes, or the limit of our control
// groups where that is lower.
func (h *Real) MemoryTotal() (int64, error) {
	total, err := h.memInfo("MemTotal")
	if err != nil {
		return 0, err
	}
	for _, g := range h.memoryGroups() {
		if limit, ok := g.number(g.limit); ok {
			total = min(total, limit)
		}
	}
	return total, nil
}

// MemoryAvailable is what can be used without swapping, in bytes.
func (h *Real) MemoryAvailable() (int64, error) {
	free, err := h.memInfo("MemAvailable")
	if err != nil {
		return 0, err
	}
	for _, g := range h.memoryGroups() {
		limit, limited := g.number(g.limit)
		used, known := g.number(g.used)
		if !limited || !known {
			continue
		}
		// What a group uses counts its files in memory, which the kernel gives up
		// when somebody wants the room.
		used -= min(g.stat(g.inactive), used)
		free = min(free, max(limit-used, 0))
	}
	return free, nil
}

// memoryGroup is one control group that counts our memory, and its files.
type memoryGroup struct{ dir, limit, used, inactive string }

// memoryGroups are those we are in, of version 2 and 1: ours and all above it,
// for any may have a limit. In a container that sees its own group as the root
// the path that the kernel tells may lead nowhere; then the root is ours.
func (h *Real) memoryGroups() []memoryGroup {
	data, err := os.ReadFile(h.file("proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var all []memoryGroup
	for line := range strings.Lines(string(data)) {
		// proc_pid_cgroup(5): hierarchy-ID:controller-list:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		g := memoryGroup{limit: "memory.max", used: "memory.current", inactive: "inactive_file"}
		root := "sys/fs/cgroup"
		switch {
		case parts[0] == "0" && parts[1] == "":
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			g = memoryGroup{limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", inactive: "total_inactive_file"}
			root = "sys/fs/cgroup/memory"
		default:
			continue
		}
		for group := filepath.Clean("/" + parts[2]); ; group = filepath.Dir(group) {
			g.dir = h.file(filepath.Join(root, group))
			all = append(all, g)
			if group == "/" {
				break
			}
		}
	}
	return all
}

// number reads a file of one number; false where there is none, or "max".
func (g memoryGroup) number(name string) (int64, bool) {
	data, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil && n >= 0
}

// stat is one figure of memory.stat, in bytes; 0 where it is not told.
func (g memoryGroup) stat(name string) int64 {
	data, err := os.ReadFile(filepath.Join(g.dir, "memory.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key != name {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0
		}
		return max(n, 0)
	}
	return 0
}

func (h *Real) memInfo(field string) (int64, error) {
	data, err := os.ReadFile(h.file("proc/meminfo"))
	if err != nil {
		return 0, api.Errorf(api.KindInternal, "cannot read the host's memory: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != field {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil || kib < 0 || kib > 1<<50 {
			break
		}
		return kib << 10, nil
	}
	return 0, api.Errorf(api.KindInternal, "cannot read the host's memory: %s has no %s", h.file("proc/meminfo"), field)
}

// InMemory says whether the files below the folder are in memory.
func (h *Real) InMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

// FreeDisk is what an ordinary user may still write below the folder, in bytes.
// The folder need not exist yet.
func (h *Real) FreeDisk(dir string) (int64, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, api.Errorf(api.KindInvalid, "cannot see how much disk is free in %s: %w", dir, err)
	}
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * int64(st.Frsize), nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return 0, api.Errorf(kindOf(err), "cannot see how much disk is free in %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

// BootID changes with every boot of the host; empty where the kernel tells none.
func (h *Real) BootID() string {
	data, err := os.ReadFile(h.file("proc/sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Resolvers are the name servers of the host's resolv.conf, in order.
func (h *Real) Resolvers() ([]string, error) {
	data, err := os.ReadFile(h.file("etc/resolv.conf"))
	if err != nil {
		return nil, api.Errorf(kindOf(err), "cannot read the host's resolvers: %w", err)
	}
	var list []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) >= 2 && f[0] == "nameserver" {
			list = append(list, f[1])
		}
	}
	return list, nil
}

// FileSystem is the magic number of the file system that holds path; see
// statfs(2).
func (h *Real) FileSystem(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, api.Errorf(kindOf(err), "cannot look at the file system of %s: %w", path, err)
	}
	return int64(st.Type), nil
}

func kindOf(err error) api.Kind {
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS):
		return api.KindDenied
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return api.KindNoSpace
	case errors.Is(err, os.ErrNotExist):
		return api.KindNotFound
	}
	return api.KindInternal
}

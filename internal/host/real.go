package host

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
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
// group where that is lower.
func (h *Real) MemoryTotal() (int64, error) {
	total, err := h.memInfo("MemTotal")
	if err != nil {
		return 0, err
	}
	if limit, ok := h.cgroupNumber("memory.max"); ok {
		total = min(total, limit)
	}
	return total, nil
}

// MemoryAvailable is what can be used without swapping, in bytes.
func (h *Real) MemoryAvailable() (int64, error) {
	free, err := h.memInfo("MemAvailable")
	if err != nil {
		return 0, err
	}
	limit, limited := h.cgroupNumber("memory.max")
	used, known := h.cgroupNumber("memory.current")
	if limited && known {
		free = min(free, max(limit-used, 0))
	}
	return free, nil
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

// cgroupNumber reads a file of our own control group (version 2); false where
// there is none, or no limit.
func (h *Real) cgroupNumber(name string) (int64, bool) {
	data, err := os.ReadFile(h.file("proc/self/cgroup"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		data, err := os.ReadFile(h.file(filepath.Join("sys/fs/cgroup", group, name)))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		return n, err == nil
	}
	return 0, false
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

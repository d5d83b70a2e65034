package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/google/go-cmp/cmp"
)

// machine makes a root folder with the files.
func machine(t *testing.T, files map[string]string) *Real {
	t.Helper()
	root := t.TempDir()
	for name, data := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &Real{root: root, env: os.Getenv}
}

const memInfo = "MemTotal:        4028444 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n"

func TestMemory(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files            map[string]string
		total, available int64
		fails            bool
	}{
		"free":     {map[string]string{"proc/meminfo": memInfo}, 4028444 << 10, 2000000 << 10, false},
		"no limit": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 4028444 << 10, 2000000 << 10, false},
		"limited": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "1:cpu:/x\n0::/a\n", "sys/fs/cgroup/a/memory.max": "1073741824\n",
			"sys/fs/cgroup/a/memory.current": "1000000000\n"}, 1 << 30, 1<<30 - 1000000000, false},
		"over the limit": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1000\n",
			"sys/fs/cgroup/a/memory.current": "2000\n"}, 1000, 0, false},
		// Files in memory count as used, though the kernel gives them up.
		"files in memory": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1073741824\n",
			"sys/fs/cgroup/a/memory.current": "1000000000\n", "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file_x 5\ninactive_file 900000000\n"}, 1 << 30, 1<<30 - 100000000, false},
		"more files than use": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1073741824\n",
			"sys/fs/cgroup/a/memory.current": "1000\n", "sys/fs/cgroup/a/memory.stat": "inactive_file 900000000\n"}, 1 << 30, 1 << 30, false},
		"a limit above": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/b/c/memory.max": "max\n",
			"sys/fs/cgroup/a/memory.max": "1073741824\n", "sys/fs/cgroup/a/memory.current": "1000000000\n"}, 1 << 30, 1<<30 - 1000000000, false},
		"a container's own root": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "0::/docker/x\n", "sys/fs/cgroup/memory.max": "1073741824\n",
			"sys/fs/cgroup/memory.current": "1000000000\n"}, 1 << 30, 1<<30 - 1000000000, false},
		"version 1": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "9:cpu,memory:/a\n8:pids:/z\n0::/b\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "9000000000\n",
			"sys/fs/cgroup/memory/a/memory.usage_in_bytes": "1000000000\n", "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 5\ntotal_inactive_file 600000000\n"}, 1 << 30, 1<<30 - 400000000, false},
		"a strange path": {map[string]string{"proc/meminfo": memInfo, "proc/self/cgroup": "0::/../..\nnonsense\n0::\n"}, 4028444 << 10, 2000000 << 10, false},
		"nothing":        {map[string]string{}, 0, 0, true},
		"nonsense":       {map[string]string{"proc/meminfo": "MemTotal: lots\nMemAvailable: -5 kB\n"}, 0, 0, true},
	} {
		h := machine(t, tc.files)
		total, err := h.MemoryTotal()
		if total != tc.total || (err != nil) != tc.fails {
			t.Errorf("%s: total %d, %v", name, total, err)
		}
		available, err := h.MemoryAvailable()
		if available != tc.available || (err != nil) != tc.fails {
			t.Errorf("%s: available %d, %v", name, available, err)
		}
	}
}

func TestThisMachine(t *testing.T) {
	t.Parallel()
	h := New(os.Getenv)
	if h.CPUs() < 1 || h.BootID() == "" {
		t.Error(h.CPUs(), h.BootID())
	}
	total, err := h.MemoryTotal()
	available, err2 := h.MemoryAvailable()
	if err != nil || err2 != nil || total < 64<<20 || available > total {
		t.Error(total, available, err, err2)
	}
	free, err := h.FreeDisk(filepath.Join(t.TempDir(), "not", "yet"))
	if err != nil || free <= 0 {
		t.Error(free, err)
	}
	if kind, err := h.FileSystem("/proc"); err != nil || kind != 0x9fa0 {
		t.Error(kind, err)
	}
	if _, err := h.FileSystem("/no/such/file"); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
}

func TestResolvers(t *testing.T) {
	t.Parallel()
	h := machine(t, map[string]string{"etc/resolv.conf": "# hi\nsearch example.org\nnameserver 10.0.0.1\n nameserver\t::1 # local\nnameserver\noptions edns0"})
	got, err := h.Resolvers()
	if diff := cmp.Diff([]string{"10.0.0.1", "::1"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := machine(t, nil).Resolvers(); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
}

func TestSubordinateIDs(t *testing.T) {
	t.Parallel()
	const uid = 987654 // nobody's on this host
	for name, tc := range map[string]struct {
		subuid, subgid string
		ok             bool
		hint           string
	}{
		"both, by id":    {"987654:100000:65536\n", "987654:100000:65536\n", true, ""},
		"the second":     {"root:0:65536\n987654:1:10\n987654:100000:70000\n", "987654:100000:65536", true, ""},
		"no subuid":      {"root:100000:65536\n", "987654:100000:65536\n", false, "--add-subuids"},
		"no subgid":      {"987654:100000:65536\n", "", false, "--add-subgids"},
		"too few":        {"987654:100000:65535\n", "987654:100000:65536\n", false, "--add-subuids"},
		"nonsense":       {"987654:x\n:::\n987654:1:many\n", "987654:100000:65536\n", false, "--add-subuids"},
		"another's name": {"98765:100000:65536\n", "987654:100000:65536\n", false, "--add-subuids"},
	} {
		h := machine(t, map[string]string{"etc/subuid": tc.subuid, "etc/subgid": tc.subgid})
		err := h.SubIDs(uid)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && !strings.Contains(api.AsError(err).Hint, tc.hint) {
			t.Errorf("%s: hint %q", name, api.AsError(err).Hint)
		}
	}
	if err := machine(t, nil).SubIDs(0); err != nil {
		t.Errorf("root needs none: %v", err)
	}
	if err := machine(t, nil).SubIDs(uid); err == nil {
		t.Error("no files at all")
	}
}

func TestUserNamespaces(t *testing.T) {
	t.Parallel()
	ns := "proc/self/ns/user"
	for name, tc := range map[string]struct {
		files map[string]string
		hint  string // of the refusal; empty: allowed
		ok    bool
	}{
		"allowed":          {map[string]string{ns: "", "proc/sys/user/max_user_namespaces": "15000\n", "proc/sys/kernel/unprivileged_userns_clone": "1\n"}, "", true},
		"no settings":      {map[string]string{ns: ""}, "", true},
		"none":             {map[string]string{ns: "", "proc/sys/user/max_user_namespaces": "0\n"}, "max_user_namespaces", false},
		"old Debian":       {map[string]string{ns: "", "proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "unprivileged_userns_clone", false},
		"Ubuntu":           {map[string]string{ns: "", "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, "apparmor", false},
		"a kernel without": {map[string]string{}, "", false},
	} {
		err := machine(t, tc.files).UserNamespaces()
		if (err == nil) != tc.ok || err != nil && !strings.Contains(api.AsError(err).Hint, tc.hint) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	tail := " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 19 20\n"
	for name, tc := range map[string]struct {
		text  string
		state byte
		start uint64
		ok    bool
	}{
		"plain":            {"12 (sleep) S" + tail, 'S', 4242, true},
		"a name of traps":  {"12 (a) R 1 (b) ) Z" + tail, 'Z', 4242, true},
		"lines in a name":  {"12 (a\nb) S" + tail, 'S', 4242, true},
		"cut":              {"12 (sleep) S 1 2 3", 0, 0, false},
		"nothing":          {"", 0, 0, false},
		"no number":        {"12 (sleep) S" + strings.Replace(tail, "4242", "x", 1), 'S', 0, false},
		"a bracket at end": {"12 (sleep)", 0, 0, false},
	} {
		state, start, ok := parseStat([]byte(tc.text))
		if state != tc.state || start != tc.start || ok != tc.ok {
			t.Errorf("%s: %c %d %v", name, state, start, ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (sleep) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 19 20\n"))
	f.Add([]byte(")"))
	f.Fuzz(func(_ *testing.T, data []byte) { parseStat(data) })
}

// both is what the VM room needs of a host; Real and Fake must have it.
var (
	_ both = (*Real)(nil)
	_ both = (*Fake)(nil)
)

package cgroup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

const unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"

func TestParse(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mounts, groups string
		want           tree
		refused        string
	}{
		"systemd":             {unified, "0::/user.slice/session-3.scope\n", tree{"/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/session-3.scope"}, ""},
		"the top":             {unified, "0::/\n", tree{"/sys/fs/cgroup", "/sys/fs/cgroup"}, ""},
		"a part is mounted":   {"29 23 0:26 /docker/a /sys/fs/cgroup rw - cgroup2 c rw\n", "0::/docker/a/b\n", tree{"/sys/fs/cgroup", "/sys/fs/cgroup/b"}, ""},
		"we are elsewhere":    {"29 23 0:26 /docker/a /sys/fs/cgroup rw - cgroup2 c rw\n", "0::/other\n", tree{"/sys/fs/cgroup", ""}, ""},
		"above our namespace": {unified, "0::/../x\n", tree{"/sys/fs/cgroup", ""}, ""},
		"a space":             {"29 23 0:26 / /a\\040b rw - cgroup2 c rw\n", "0::/x\n", tree{"/a b", "/a b/x"}, ""},
		"version 1":           {"30 23 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n", "3:pids:/\n", tree{}, "version 1 only"},
		"both":                {unified + "30 23 0:27 / /x rw - cgroup cgroup rw,pids\n", "0::/\n", tree{}, "belong to control groups of version 1"},
		"none":                {"1 2 0:3 / / rw - ext4 /dev/vda rw\n", "", tree{}, "no control groups"},
		"nonsense":            {"x\n - \n\n1 - cgroup2\n", "0:\n", tree{}, "no control groups"},
	} {
		got, err := parse([]byte(tc.mounts), []byte(tc.groups))
		if tc.refused != "" {
			if api.KindOf(err) != api.KindUnsupported || !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestCandidates(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		own  string
		euid int
		want []string
	}{
		"root":            {"/c/a/b", 0, []string{"/c", "/c/a/b", "/c/a"}},
		"root at the top": {"/c", 0, []string{"/c"}},
		"a user":          {"/c/a/b", 7, []string{"/c/a/b", "/c/a", "/c"}},
		"moved aside":     {"/c/a/banger-daemon", 7, []string{"/c/a", "/c"}},
		"nowhere":         {"", 7, []string{"/c"}},
	} {
		if diff := cmp.Diff(tc.want, tree{"/c", tc.own}.candidates(tc.euid)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	want := []setting{
		{"memory.max", "1024"}, {"memory.oom.group", "1"}, {"pids.max", "9"}, {"cpu.max", "300000 100000"},
		{"io.weight", "default 50"}, {"io.bfq.weight", "50"},
	}
	if diff := cmp.Diff(want, Limits{1024, 9, 3, 50}.settings(), cmp.AllowUnexported(setting{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := (Limits{}).settings(); len(got) > 0 {
		t.Errorf("no limits are %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(unified), []byte("0::/a\n"))
	f.Fuzz(func(t *testing.T, mounts, groups []byte) {
		got, err := parse(mounts, groups)
		if err == nil && got.own != "" && !strings.HasPrefix(got.own, strings.TrimSuffix(got.mount, "/")) {
			t.Errorf("our group %q is not below %q", got.own, got.mount)
		}
	})
}

package guest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

const passwd = `# a comment
root:x:0:0:root:/root:/bin/bash
broken line
dev:x:1000:1001:Dev:/home/dev:/bin/zsh
nohome:x:1002:1002:::
1003:x:7:8:a name of digits:/srv:/bin/sh
bad:x:abc:0::/:/bin/sh
:x:0:0::/:/bin/sh
`

const group = `root:x:0:
dev:x:1001:
sudo:x:27:someone,dev
docker:x:999: dev ,other
twice:x:27:dev
broken:x:abc:dev
`

func TestFindAccount(t *testing.T) {
	t.Parallel()
	etc := t.TempDir()
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := account{name: "root", home: "/root", shell: "/bin/bash", groups: []uint32{0}}
	dev := account{name: "dev", uid: 1000, gid: 1001, home: "/home/dev", shell: "/bin/zsh", groups: []uint32{1001, 27, 999}}
	with := func(a account, gid uint32) account { a.gid, a.groups = gid, []uint32{gid}; return a }
	for _, tc := range []struct {
		spec string
		want account
		bad  bool
	}{
		{"", root, false},
		{"root", root, false},
		{"0", root, false},
		{"dev", dev, false},
		{"1000", dev, false},
		{"dev:sudo", with(dev, 27), false},
		{"1000:5", with(dev, 5), false},
		{":dev", with(root, 1001), false},
		{"nohome", account{name: "nohome", uid: 1002, gid: 1002, home: "/", groups: []uint32{1002}}, false},
		{"1003", account{name: "1003", uid: 7, gid: 8, home: "/srv", shell: "/bin/sh", groups: []uint32{8}}, false},
		{"4242", account{uid: 4242, home: "/", groups: []uint32{0}}, false},
		{"nobody", account{}, true},
		{"bad", account{}, true},
		{"-1", account{}, true},
		{"4294967295", account{}, true},
		{"dev:none", account{}, true},
		{"dev:", account{}, true},
	} {
		got, err := findAccount(etc, tc.spec)
		if tc.bad {
			if api.KindOf(err) != api.KindInvalid {
				t.Errorf("%q: got %+v, %v", tc.spec, got, err)
			}
			continue
		}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(account{})); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", tc.spec, err, diff)
		}
	}
}

func TestFindAccountOddFiles(t *testing.T) {
	t.Parallel()
	etc := t.TempDir()
	if got, err := findAccount(etc, ""); err != nil || got.home != "/root" {
		t.Errorf("no files: %+v, %v", got, err)
	}
	if err := syscall.Mkfifo(filepath.Join(etc, "passwd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := findAccount(etc, ""); api.KindOf(err) != api.KindInvalid {
		t.Errorf("pipe: %v", err)
	}
}

func FuzzAccounts(f *testing.F) {
	f.Add([]byte(passwd), "dev")
	f.Add([]byte(group), "1000")
	f.Add([]byte(strings.Repeat("a:x:1:dev\n", 3)), "a")
	f.Fuzz(func(t *testing.T, data []byte, who string) {
		if acc, ok := lookupPasswd(data, who); ok && !strings.HasPrefix(acc.home, "/") {
			t.Errorf("home %q", acc.home)
		}
		lookupGroup(data, who)
		if n := len(lookupGroups(data, who, 0)); n < 1 || n > maxGroups {
			t.Errorf("%d groups", n)
		}
	})
}

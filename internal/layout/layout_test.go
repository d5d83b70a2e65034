package layout

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func TestResolve(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  map[string]string
		want Layout
	}{
		"a root": {map[string]string{"BANGER_ROOT": "/r", "HOME": "/home/u", "XDG_STATE_HOME": "/x"},
			Layout{Config: "/r/config", State: "/r/state", Cache: "/r/cache", Runtime: "/r/run", Root: "/r"}},
		"home": {map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"},
			Layout{Config: "/home/u/.config/banger", State: "/home/u/.local/state/banger", Cache: "/home/u/.cache/banger", Runtime: "/run/user/7/banger"}},
		"XDG": {map[string]string{"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/k", "XDG_RUNTIME_DIR": "/t"},
			Layout{Config: "/c/banger", State: "/s/banger", Cache: "/k/banger", Runtime: "/t/banger"}},
		"XDG that is relative does not count": {map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": ".", "XDG_CACHE_HOME": "", "XDG_RUNTIME_DIR": "/t"},
			Layout{Config: "/h/.config/banger", State: "/h/.local/state/banger", Cache: "/h/.cache/banger", Runtime: "/t/banger"}},
	} {
		got, err := Resolve(env(tc.env), 7)
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestNowhereToGo(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]map[string]string{"nothing": {}, "a relative home": {"HOME": "home"}, "half": {"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}} {
		_, err := Resolve(env(e), 7)
		if api.KindOf(err) != api.KindInvalid || !strings.Contains(api.AsError(err).Hint, "BANGER_ROOT") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutARuntimeFolderRootsAndUsersAreToldApart(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, uid := range []int{0, 7} {
		for _, home := range []string{"/home/a", "/home/b"} {
			l, err := Resolve(env(map[string]string{"HOME": home, "TMPDIR": "/t"}), uid)
			if err != nil || !strings.HasPrefix(l.Runtime, "/t/banger-") || seen[l.Runtime] {
				t.Errorf("%+v, %v", l, err)
			}
			seen[l.Runtime] = true
		}
	}
}

// TestSocketPathsFit tries roots of every length around the limit of 107 bytes.
func TestSocketPathsFit(t *testing.T) {
	t.Parallel()
	var short int
	for n := 1; n < 200; n++ {
		root := "/" + strings.Repeat("r", n)
		l, err := Resolve(env(map[string]string{"BANGER_ROOT": root}), 1000)
		if err != nil {
			t.Fatal(n, err)
		}
		d := l.VM("0123456789abcdef")
		for _, s := range []string{l.DaemonSocket(), d.KeeperSocket(), d.GuestSocket(), d.BulkSocket(), d.QMPSocket(), d.LinkSocket(), d.NetSocket(), d.VMMFolder()} {
			if len(s) > maxSocket {
				t.Errorf("%s has %d bytes", s, len(s))
			}
		}
		if l.State != root+"/state" {
			t.Errorf("the state moved to %s", l.State)
		}
		if l.Runtime != root+"/run" {
			short++
		} else if short > 0 {
			t.Errorf("a root of %d bytes fits, a shorter one did not", n+1)
		}
	}
	if short == 0 || short == 199 {
		t.Errorf("%d short folders", short)
	}
	_, err := Resolve(env(map[string]string{"BANGER_ROOT": "/" + strings.Repeat("r", 150), "TMPDIR": "/" + strings.Repeat("t", 150)}), 1000)
	if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "107") || api.AsError(err).Hint == "" {
		t.Error(err)
	}
}

func TestEnsure(t *testing.T) {
	t.Parallel()
	made := func(t *testing.T) Layout {
		l, err := Resolve(env(map[string]string{"BANGER_ROOT": t.TempDir(), "TMPDIR": t.TempDir()}), os.Geteuid())
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	t.Run("private, and again", func(t *testing.T) {
		t.Parallel()
		l := made(t)
		if err := os.Mkdir(l.State, 0o755); err != nil { // too open: closed
			t.Fatal(err)
		}
		for range 2 {
			if err := l.Ensure(); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range []string{l.State, l.Cache, l.Runtime, l.Images(), l.Kernels(), l.VMs(), l.Staging()} {
			if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
				t.Errorf("%s: %v, %v", dir, fi, err)
			}
		}
		if _, err := os.Stat(l.Config); err == nil {
			t.Error("the user's configuration folder was made")
		}
	})
	t.Run("a file in the way", func(t *testing.T) {
		t.Parallel()
		l := made(t)
		if err := os.WriteFile(l.State, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.Ensure(); err == nil || !strings.Contains(err.Error(), l.State) {
			t.Error(err)
		}
	})
	t.Run("a link in the way", func(t *testing.T) {
		t.Parallel()
		l := made(t)
		if err := os.Symlink(t.TempDir(), l.Runtime); err != nil {
			t.Fatal(err)
		}
		if err := l.Ensure(); api.KindOf(err) != api.KindDenied {
			t.Error(err)
		}
	})
	t.Run("another's folder", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("only root gives folders away")
		}
		l := made(t)
		if err := os.Mkdir(l.Runtime, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(l.Runtime, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := l.Ensure(); api.KindOf(err) != api.KindDenied || !strings.Contains(err.Error(), "12345") || api.AsError(err).Hint == "" {
			t.Error(err)
		}
	})
	t.Run("a root that cannot be written", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() == 0 {
			t.Skip("root writes everywhere")
		}
		root := t.TempDir()
		if err := os.Chmod(root, 0o500); err != nil {
			t.Fatal(err)
		}
		l, err := Resolve(env(map[string]string{"BANGER_ROOT": root}), os.Geteuid())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Ensure(); api.KindOf(err) != api.KindDenied || api.AsError(err).Hint == "" {
			t.Error(err)
		}
	})
}

func TestEveryNameLiesInItsFolder(t *testing.T) {
	t.Parallel()
	l := Layout{Config: "/c", State: "/s", Cache: "/k", Runtime: "/r"}
	d, i, k := l.VM("v"), l.Image("i"), l.Kernel("k")
	seen := map[string]bool{}
	for folder, names := range map[string][]string{
		"/c":          {l.ConfigFile()},
		"/s":          {l.Database(), l.DaemonLock(), l.DaemonLog(), l.Images(), l.Kernels(), l.VMs(), l.Staging()},
		"/k":          {l.ProbeCache("a"), l.ProbeCache("b"), l.GuestCPIO("b1"), l.GuestCPIO("b2")},
		"/r":          {l.DaemonSocket(), l.DaemonStartLock()},
		"/s/vms/v":    {d.SystemDisk(), d.WorkDisk(), d.Initrd(), d.ConsoleLog(), d.KeeperLog(), d.VMMLog(), d.VMMMetrics(), d.KeeperConfig(), d.Handle(), d.ExitFile()},
		"/r/vm/v":     {d.KeeperSocket(), d.GuestSocket(), d.BulkSocket(), d.QMPSocket(), d.LinkSocket(), d.NetSocket()},
		"/s/images/i": {i.RootFS(), i.Manifest(), i.WorkSeed()}, "/s/kernels/k": {k.VMLinux(), k.Modules(), k.BootModules(), k.Manifest()},
	} {
		for _, n := range names {
			if filepath.Dir(n) != folder || seen[n] {
				t.Errorf("%s: not in %s, or twice", n, folder)
			}
			seen[n] = true
		}
	}
}

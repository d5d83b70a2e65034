package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/guestapi"
)

func TestAuthorize(t *testing.T) {
	t.Parallel()
	one := &guestapi.AuthorizedKey{Key: "ssh-ed25519 AAAA1", Fingerprint: "SHA256:1"}
	two := &guestapi.AuthorizedKey{Key: "ssh-ed25519 AAAA2", Fingerprint: "SHA256:2"}
	const own = "# mine\nssh-rsa BBBB me@laptop\n\ncommand=\"x\" ssh-ed25519 AAAA1 banger-managed-not"
	cases := map[string]struct {
		old  string
		key  *guestapi.AuthorizedKey
		want string
	}{
		"new":                {"", one, "ssh-ed25519 AAAA1 banger-managed\n"},
		"the same":           {"ssh-ed25519 AAAA1 banger-managed\n", one, "ssh-ed25519 AAAA1 banger-managed\n"},
		"changed":            {"ssh-ed25519 AAAA1 banger-managed\n", two, "ssh-ed25519 AAAA2 banger-managed\n"},
		"beside the user's":  {own, one, own + "\nssh-ed25519 AAAA1 banger-managed\n"},
		"between the user's": {"a b c\nssh-ed25519 AAAA1 banger-managed\nd e f\n", two, "a b c\nd e f\nssh-ed25519 AAAA2 banger-managed\n"},
		"twice":              {"ssh-ed25519 AAAA1 banger-managed\nx\nssh-ed25519 AAAA1 banger-managed\n", one, "ssh-ed25519 AAAA1 banger-managed\nx\n"},
		"no key":             {own, nil, own},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			home, stamp := filepath.Join(top, "root"), filepath.Join(top, "ssh-key")
			path := filepath.Join(home, ".ssh/authorized_keys")
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(path), 0o775); err != nil {
				t.Fatal(err)
			}
			if c.old != "" {
				if err := os.WriteFile(path, []byte(c.old), 0o664); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second changes nothing
				if err := authorize(home, stamp, c.key); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, string(got)); d != "" {
					t.Error(d)
				}
			}
			if c.key == nil {
				return
			}
			if got, err := os.ReadFile(stamp); err != nil || string(got) != c.key.Fingerprint+"\n" {
				t.Errorf("the stamp holds %q, %v", got, err)
			}
			for _, p := range []string{filepath.Dir(path), path} {
				if fi, err := os.Stat(p); err != nil || fi.Mode().Perm()&0o022 != 0 {
					t.Errorf("%s: %v, %v", p, fi.Mode(), err)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(home, ".ssh/*.banger")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestAuthorizeWithLinks(t *testing.T) {
	t.Parallel()
	key := &guestapi.AuthorizedKey{Key: "ssh-ed25519 AAAA1", Fingerprint: "SHA256:1"}
	for name, c := range map[string]struct {
		link    string // of authorized_keys
		sshLink string // of .ssh
		where   string // what then holds the key
		refused string
	}{
		"within":                      {link: "../dotfiles/keys", where: "dotfiles/keys"},
		"by its future name":          {link: "/root/dotfiles/keys", where: "dotfiles/keys"},
		"the folder is a link":        {sshLink: "dotfiles/ssh", where: "dotfiles/ssh/authorized_keys"},
		"out of it":                   {link: "/etc/passwd", refused: "leads out of the home"},
		"climbs out of it":            {link: "../../ssh-key", refused: "leads out of the home"},
		"round and round":             {link: "authorized_keys", refused: "too many levels"},
		"the folder leads away":       {sshLink: "/etc", refused: "leads out of the home"},
		"the folder leads to nothing": {sshLink: "/no/such", refused: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := filepath.Join(t.TempDir(), "root")
			if err := os.MkdirAll(filepath.Join(home, "dotfiles/ssh"), 0o755); err != nil {
				t.Fatal(err)
			}
			ssh := filepath.Join(home, ".ssh")
			var err error
			if c.sshLink != "" {
				err = os.Symlink(c.sshLink, ssh)
			} else if err = os.Mkdir(ssh, 0o700); err == nil {
				err = os.Symlink(c.link, filepath.Join(ssh, "authorized_keys"))
			}
			if err != nil {
				t.Fatal(err)
			}
			err = authorize(home, filepath.Join(filepath.Dir(home), "ssh-key"), key)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Lstat(filepath.Join(home, c.where)); err != nil || !fi.Mode().IsRegular() {
				t.Errorf("got %v, %v", fi, err)
			}
		})
	}
}

func FuzzAuthorized(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAA1 banger-managed\r\nx"))
	f.Add([]byte("# banger-managed\n\n\x00"))
	f.Fuzz(func(t *testing.T, old []byte) {
		once := authorized(old, "ssh-ed25519 AAAA")
		if again := authorized(once, "ssh-ed25519 AAAA"); string(again) != string(once) {
			t.Fatalf("%q became %q", once, again)
		}
	})
}

func TestRealFolder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(root string) error
		want string
		err  string
	}{
		"a folder":         {func(r string) error { return os.Mkdir(r+"/root", 0o755) }, "/root", ""},
		"missing":          {func(string) error { return nil }, "/root", ""},
		"an absolute link": {func(r string) error { return os.Symlink("/home/admin", r+"/root") }, "/home/admin", ""},
		"links to links": {func(r string) error {
			_ = os.Symlink("var/roothome", r+"/root")
			_ = os.Mkdir(r+"/var", 0o755)
			return os.Symlink("../data/home", r+"/var/roothome")
		}, "/data/home", ""},
		"a file":      {func(r string) error { return os.WriteFile(r+"/root", nil, 0o644) }, "", "is no folder"},
		"a link to /": {func(r string) error { return os.Symlink("/", r+"/root") }, "", "a link to /"},
		"round":       {func(r string) error { return os.Symlink("root", r+"/root") }, "", "too many levels"},
		"out of root": {func(r string) error { return os.Symlink("../../../x", r+"/root") }, "/x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			if err := c.make(root); err != nil {
				t.Fatal(err)
			}
			got, err := realFolder(root, "/root")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if err != nil || got != filepath.Join(root, c.want) {
				t.Errorf("got %q, %v", got, err)
			}
			if fi, err := os.Lstat(got); err != nil || !fi.IsDir() {
				t.Errorf("%v, %v", fi, err)
			}
		})
	}
}

func TestFindShell(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		have []string
		own  string
		want string
	}{
		"the user's":      {[]string{"/bin/bash", "/bin/zsh"}, "/bin/zsh", "/bin/zsh"},
		"no login":        {[]string{"/bin/sh", "/usr/sbin/nologin"}, "/usr/sbin/nologin", "/bin/sh"},
		"not there":       {[]string{"/bin/sh"}, "/bin/zsh", "/bin/sh"},
		"bash before sh":  {[]string{"/bin/sh", "/usr/bin/bash"}, "", "/usr/bin/bash"},
		"busybox only":    {[]string{"/bin/busybox"}, "", "/bin/busybox"},
		"busybox's place": {[]string{"/busybox/sh"}, "", "/busybox/sh"},
		"none":            {nil, "/bin/sh", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for _, p := range c.have {
				if err := os.MkdirAll(filepath.Dir(root+p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(root+p, nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if got := findShell(root, c.own); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := shellName("/bin/busybox"); got != "sh" {
		t.Errorf("busybox is called %q", got)
	}
}

func TestMachineID(t *testing.T) {
	t.Parallel()
	a := string(machineID(nil, "vm1"))
	if len(a) != 33 || a != string(machineID([]byte("uninitialized\n"), "vm1")) || a == string(machineID(nil, "vm2")) {
		t.Errorf("got %q", a)
	}
	own := []byte("0123456789abcdef0123456789abcdef\n")
	if got := machineID(own, "vm1"); string(got) != string(own) {
		t.Errorf("the image's own became %q", got)
	}
}

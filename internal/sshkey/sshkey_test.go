package sshkey

import (
	"crypto/ed25519"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/bangervm/banger/api"
)

func TestOursIsMadeOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ssh/id_ed25519")
	k := New("", path)
	got := make([]Key, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = k.Key(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range got {
		if key != got[0] {
			t.Errorf("two keys: %+v and %+v", key, got[0])
		}
	}
	if key := got[0]; key.Path != path || !strings.HasPrefix(key.Line, "ssh-ed25519 AAAA") || strings.Count(key.Line, " ") != 1 || !strings.HasPrefix(key.Fingerprint, "SHA256:") {
		t.Errorf("%+v", key)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi, err)
	}
	if again, err := New("", path).Key(); err != nil || again != got[0] {
		t.Errorf("%+v, %v", again, err)
	}
	if err := os.WriteFile(path, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Key(); api.KindOf(err) != api.KindInternal || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "junk" {
		t.Error("a damaged key was replaced")
	}
}

func TestTheUsersOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	open, err := ssh.MarshalPrivateKey(private, "me@laptop")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := ssh.MarshalPrivateKeyWithPassphrase(private, "me@laptop", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"open": pem.EncodeToMemory(open), "closed": pem.EncodeToMemory(closed), "half.pub": []byte(line + " me@laptop\n"), "junk": []byte("junk"),
		"fifo-like": make([]byte, maxKey+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ path, err, hint string }{
		"open":      {path: "open"},
		"closed":    {path: "closed"},
		"half.pub":  {path: "half"},
		"junk":      {err: "it is no ssh key", hint: "ls -l"},
		"none":      {err: "no such file", hint: "ssh-keygen -t ed25519 -f"},
		"fifo-like": {err: "no small file", hint: "ls -l"},
		"":          {err: "no small file", hint: "ls -l"}, // the folder
	} {
		key, err := New(filepath.Join(dir, name), "/no/such").Key()
		if c.err != "" {
			if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(api.AsError(err).Hint, c.hint) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if want := (Key{Path: filepath.Join(dir, c.path), Line: line, Fingerprint: ssh.FingerprintSHA256(pub)}); err != nil || key != want {
			t.Errorf("%s: %+v, %v", name, key, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me"))
	f.Add([]byte("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := read(path); err == nil && (strings.ContainsAny(key.Line, "\n\r\x00") || key.Line == "") {
			t.Fatalf("line %q", key.Line)
		}
	})
}

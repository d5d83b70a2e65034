package signature

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"aead.dev/minisign"

	"github.com/bangervm/banger/api"
)

// tool runs the real minisign in dir.
func tool(t *testing.T, dir, stdin string, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "minisign", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("no minisign: scripts/deps test installs it")
	}
	t.Logf("minisign %v: %s", args, out)
	return err
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, b []byte, elem ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(elem...), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func noPassword() (string, error) { return "", errors.New("no password was to be asked") }

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// What the real tool signs is verified, and what we sign the real tool verifies.
func TestTheRealMinisign(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("a bundle, so to speak\n"), 100_000)
	dir := t.TempDir()
	if err := tool(t, dir, "", "-G", "-W", "-p", "k.pub", "-s", "k.key"); err != nil {
		t.Fatal(err)
	}
	key, secret := keys(t, dir, noPassword)
	again, err := ParseKey(key.String())
	if err != nil || !again.Equal(key) {
		t.Errorf("in one line: %v", err)
	}

	write(t, content, dir, "theirs")
	if err := tool(t, dir, "", "-S", "-s", "k.key", "-m", "theirs"); err != nil {
		t.Fatal(err)
	}
	if err := Verify("theirs", bytes.NewReader(content), read(t, dir, "theirs.minisig"), key); err != nil {
		t.Error(err)
	}

	write(t, content, dir, "ours")
	text, err := secret.Sign(bytes.NewReader(content), "ours", now)
	if err != nil {
		t.Fatal(err)
	}
	write(t, text, dir, "ours.minisig")
	if err := tool(t, dir, "", "-V", "-p", "k.pub", "-m", "ours"); err != nil {
		t.Errorf("minisign does not take ours: %v", err)
	}
	if err := Verify("ours", bytes.NewReader(content), text, key); err != nil {
		t.Error(err)
	}
	write(t, append(content, 'x'), dir, "ours")
	if err := tool(t, dir, "", "-V", "-p", "k.pub", "-m", "ours"); err == nil {
		t.Error("minisign took a changed file")
	}
	// The old kind, over the file itself.
	if err := tool(t, dir, "", "-S", "-l", "-s", "k.key", "-m", "theirs"); err != nil {
		t.Fatal(err)
	}
	err = Verify("theirs", bytes.NewReader(content), read(t, dir, "theirs.minisig"), key)
	if api.KindOf(err) != api.KindDenied || !strings.Contains(err.Error(), "old kind") {
		t.Errorf("the old kind: %v", err)
	}
}

// keys reads what minisign made, and checks that the two belong together.
func keys(t *testing.T, dir string, password func() (string, error)) (Key, SecretKey) {
	t.Helper()
	key, err := ParseKey(string(read(t, dir, "k.pub")))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := LoadSecretKey(filepath.Join(dir, "k.key"), password)
	if err != nil {
		t.Fatal(err)
	}
	if !secret.Public().Equal(key) || secret.Public().ID() != key.ID() {
		t.Errorf("the secret key's public key is %v, not %v", secret.Public(), key)
	}
	// minisign leaves the zeros at an id's beginning away.
	if !strings.Contains(string(read(t, dir, "k.pub")), strings.TrimLeft(key.ID(), "0")) {
		t.Errorf("minisign does not call it %s: %s", key.ID(), read(t, dir, "k.pub"))
	}
	return key, secret
}

// Each turn of the password's key costs a second and 1 GiB: as few as can be.
func TestAKeyWithAPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := tool(t, dir, "right\nright\n", "-G", "-p", "k.pub", "-s", "k.key"); err != nil {
		t.Fatal(err)
	}
	keys(t, dir, func() (string, error) { return "right", nil })
	if _, err := LoadSecretKey(filepath.Join(dir, "k.key"), func() (string, error) { return "wrong", nil }); api.KindOf(err) != api.KindDenied {
		t.Errorf("a wrong password: %v", err)
	}
	mine := errors.New("mine")
	if _, err := LoadSecretKey(filepath.Join(dir, "k.key"), func() (string, error) { return "", mine }); !errors.Is(err, mine) {
		t.Errorf("no password: %v", err)
	}
}

func pair(t testing.TB) (SecretKey, Key) {
	t.Helper()
	_, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k := SecretKey{private}
	return k, k.Public()
}

func TestWhatIsNotGoodIsDenied(t *testing.T) {
	t.Parallel()
	secret, key := pair(t)
	other, otherKey := pair(t)
	content := "hello"
	sign := func(k SecretKey, s string) []byte {
		text, err := k.Sign(strings.NewReader(s), "file", now)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := sign(secret, content)
	lines := strings.SplitAfter(string(good), "\n")
	for name, c := range map[string]struct {
		text []byte
		says string
	}{
		"nothing":                {nil, "not one of minisign"},
		"text":                   {[]byte("hello"), "not one of minisign"},
		"too long":               {append(bytes.Clone(good), make([]byte, MaxBytes)...), "more than"},
		"another key":            {sign(other, content), otherKey.ID() + ", not by the trusted " + key.ID()},
		"another file":           {sign(secret, "hallo"), "does not fit"},
		"another comment":        {[]byte(strings.Replace(string(good), "file:file", "file:evil", 1)), "does not fit"},
		"another's comment":      {[]byte(lines[0] + lines[1] + strings.Join(strings.SplitAfter(string(sign(secret, "x")), "\n")[2:], "")), "does not fit"},
		"without its comment":    {[]byte(lines[0] + lines[1]), "not one of minisign"},
		"its first line missing": {[]byte(strings.Join(lines[1:], "")), "not one of minisign"},
	} {
		err := Verify("app", strings.NewReader(content), c.text, key)
		if api.KindOf(err) != api.KindDenied || !strings.HasPrefix(err.Error(), "cannot trust app: ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Verify("app", strings.NewReader(content), good, key); err != nil {
		t.Errorf("what all the others were made from: %v", err)
	}
	mine := errors.New("mine")
	if err := Verify("app", iotest.ErrReader(mine), good, key); !errors.Is(err, mine) {
		t.Errorf("the reader fails: %v", err)
	}
	if _, err := secret.Sign(iotest.ErrReader(mine), "x", now); !errors.Is(err, mine) {
		t.Errorf("the reader fails: %v", err)
	}
	if err := Unsigned("app", key); api.KindOf(err) != api.KindDenied || !strings.Contains(err.Error(), key.ID()) {
		t.Errorf("unsigned: %v", err)
	}
	// A name cannot add lines to a signature.
	text, err := secret.Sign(strings.NewReader(content), "a\nb", now)
	if err != nil || Verify("app", strings.NewReader(content), text, key) != nil {
		t.Errorf("a name with a line break: %v", err)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	t.Parallel()
	_, key := pair(t)
	for _, text := range []string{"", "hello", key.String()[:40], key.String() + "AAAA", strings.Repeat("A", 56), strings.Repeat(" ", MaxBytes+1)} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%.60q is a key", text)
		}
	}
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text string
		kind api.Kind
	}{
		"empty":    {"", api.KindInvalid},
		"text":     {"hello", api.KindInvalid},
		"public":   {key.String(), api.KindInvalid},
		"too long": {strings.Repeat("A", MaxBytes+1), api.KindInvalid},
	} {
		write(t, []byte(c.text), dir, "k")
		if _, err := LoadSecretKey(filepath.Join(dir, "k"), noPassword); api.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadSecretKey(filepath.Join(dir, "none"), noPassword); api.KindOf(err) != api.KindNotFound {
		t.Errorf("missing: %v", err)
	}
}

// FuzzVerify feeds signatures and keys: none but the one made is good.
func FuzzVerify(f *testing.F) {
	secret, key := pair(f)
	good, err := secret.Sign(strings.NewReader("hello"), "file", now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, key.String())
	f.Add([]byte("untrusted comment: x\nRUQ=\ntrusted comment: y\nAAAA\n"), "RWQ")
	var made minisign.Signature
	if err := made.UnmarshalText(good); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, public string) {
		if k, err := ParseKey(public); err == nil {
			if again, err := ParseKey(k.String()); err != nil || !again.Equal(k) {
				t.Errorf("%q is not what it was: %v", public, err)
			}
		}
		if Verify("x", strings.NewReader("hello"), text, key) != nil {
			return
		}
		var s minisign.Signature
		if err := s.UnmarshalText(text); err != nil || !s.Equal(made) {
			t.Errorf("another signature is good: %q", text)
		}
	})
}

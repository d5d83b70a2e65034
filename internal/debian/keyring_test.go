package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

// The automatic signing keys of Debian 12 and 13.
var automatic = []string{"4CB50190207B4758A3F73A796ED0E7B82643E131", "B8E5F13176D2A7A75220028078DBA3BC47EF2265"}

func TestKeysOfTheArchive(t *testing.T) {
	t.Parallel()
	for _, k := range automatic {
		if err := CheckKeys("", "bookworm", []string{k}); err != nil {
			t.Errorf("this host's keyring: %v", err)
		}
	}
	if err := CheckKeys("", "trixie", append([]string{strings.Repeat("0", 40)}, automatic...)); err != nil {
		t.Errorf("one of several: %v", err)
	}
	if err := CheckKeys("/nonexistent", "trixie", nil); err != nil {
		t.Errorf("no keys named: %v", err)
	}
	err := CheckKeys("", "forky", []string{strings.Repeat("0", 40)})
	if api.KindOf(err) != api.KindUnsupported || !strings.Contains(err.Error(), "cannot verify Debian forky") || api.AsError(err).Hint == "" {
		t.Errorf("none of them: %v", err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"text": "hello", "cut": "\x99\x01\x00abc", "open": "\xc6\xe1x"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CheckKeys(path, "trixie", automatic); api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckKeys(filepath.Join(dir, "none"), "trixie", automatic); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("missing: %v", err)
	}
}

func FuzzFingerprints(f *testing.F) {
	f.Add([]byte("\x99\x00\x03\x04ab\xc6\x02\x04x\xc6\xff\x00\x00\x00\x01\x04"))
	if b, err := os.ReadFile(Keyring); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := fingerprints(b)
		if err != nil && list != nil {
			t.Error("an error and keys")
		}
		for _, k := range list {
			if len(k) != 40 {
				t.Errorf("%q", k)
			}
		}
	})
}

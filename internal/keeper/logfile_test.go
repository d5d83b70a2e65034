package keeper

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestLogFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"abc", "defghij", "klm", "0123456789ABCDEFGHIJKLMNOP"} {
		if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("writing %q: %d, %v", s, n, err)
		}
	}
	want := map[string]string{path: "HIJKLMNOP", path + ".1": "789ABCDEFG"}
	for p, w := range want {
		if b, err := os.ReadFile(p); err != nil || string(b) != w {
			t.Errorf("%s holds %q, want %q, %v", p, b, w, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Write([]byte("x")); err == nil {
		t.Error("written after Close")
	}
	if l, err = openLog(path, 10); err != nil { // it goes on where it was
		t.Fatal(err)
	}
	l.Write([]byte("!?"))
	l.Close()
	if b, _ := os.ReadFile(path + ".1"); !bytes.Equal(b, []byte("HIJKLMNOP!")) {
		t.Errorf("the full file holds %q", b)
	}
}

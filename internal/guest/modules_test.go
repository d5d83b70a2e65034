package guest

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// signed is a module with a signature of n bytes behind it, whose length is said
// to be said.
func signed(module string, n int, said uint32) []byte {
	b := append([]byte(module), bytes.Repeat([]byte{'s'}, n)...)
	b = append(b, make([]byte, signatureInfo-4)...)
	b = binary.BigEndian.AppendUint32(b, said)
	return append(b, signatureMarker...)
}

func TestDropSignature(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"signed":            {signed("ELF module", 40, 40), "ELF module"},
		"unsigned":          {[]byte("ELF module"), "ELF module"},
		"empty":             {nil, ""},
		"a lying length":    {signed("ELF", 4, 1<<20), string(signed("ELF", 4, 1<<20))},
		"nothing but it":    {signed("", 4, 4), string(signed("", 4, 4))},
		"longer than any":   {signed("ELF", 1<<17, 1<<17), string(signed("ELF", 1<<17, 1<<17))},
		"a marker half way": {append(signed("ELF", 4, 4), '\n'), string(append(signed("ELF", 4, 4), '\n'))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "m.ko")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cut, err := dropSignature(f)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
			if len(cut) == 0 {
				return
			}
			if err := restoreSignature(path, cut); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, c.file) {
				t.Errorf("with its signature again: %q, %v", got, err)
			}
		})
	}
}

func FuzzDropSignature(f *testing.F) {
	f.Add(signed("ELF module", 40, 40))
	f.Add(signed("ELF", 4, 1<<31))
	f.Add([]byte(signatureMarker))
	f.Fuzz(func(t *testing.T, file []byte) {
		path := filepath.Join(t.TempDir(), "m.ko")
		if err := os.WriteFile(path, file, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		cut, err := dropSignature(m)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(append(rest, cut...), file) {
			t.Errorf("%q became %q and %q, %v", file, rest, cut, err)
		}
	})
}

package mapper

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// The file holds a header, and for every chunk its copy and an entry.
func TestChangesSize(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int64]int64{
		64 << 20: (1 + 4 + 4096 + 8) * chunk,
		8 << 30:  (1 + 512 + 524288 + 8) * chunk,
		1:        (1 + 1 + 1 + 8) * chunk,
	} {
		if got := ChangesSize(bytes); got != want {
			t.Errorf("%d bytes: %d, want %d", bytes, got, want)
		}
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	good := []byte{'S', 'n', 'A', 'p', 1, 0, 0, 0, 1, 0, 0, 0, chunk / sectorSize, 0, 0, 0}
	with := func(at int, b byte) []byte {
		c := append([]byte{}, good...)
		c[at] = b
		return c
	}
	for want, b := range map[string][]byte{
		"":           good,
		"is cut off": good[:9], "is no snapshot": with(0, 's'),
		"is a snapshot that the kernel has given up": with(4, 0),
		"is a snapshot of another kind":              with(12, 8),
	} {
		path := filepath.Join(t.TempDir(), "changes")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := New("/").Damage(path); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := New("/").Damage(t.TempDir() + "/none"); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	b := request{name: "banger-x", uuid: "U", targets: []target{{0, 8, "linear", "7:0 0"}, {8, 4, "zero", ""}}}.encode()
	if len(b) < headerSize+2*specSize || text(b[48:]) != "banger-x" || text(b[176:]) != "U" || b[20] != 2 {
		t.Errorf("%d bytes: % x", len(b), b[:48])
	}
	first := b[headerSize:]
	if text(first[24:40]) != "linear" || text(first[40:]) != "7:0 0" || first[20] != 48 || text(first[48+24:]) != "zero" || first[48] != 8 {
		t.Errorf("% x", first[:120])
	}
	if s := decode(b); s.name != "banger-x" || s.uuid != "U" {
		t.Errorf("%+v", s)
	}
	if got := (status{dev: unix.Mkdev(253, 300)}).majorMinor(); got != "253:300" {
		t.Error(got)
	}
}

func TestCheckFolder(t *testing.T) {
	t.Parallel()
	if err := New("/").CheckFolder("/proc"); api.KindOf(err) != api.KindUnsupported {
		t.Error(err)
	}
	if err := New("/").CheckFolder(t.TempDir() + "/none"); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
}

package compression

import "testing"

func TestOf(t *testing.T) {
	t.Parallel()
	for head, want := range map[string]Format{
		"":                             None,
		"tar":                          None,
		"\x1f":                         None,
		"\x1f\x8b":                     Gzip,
		"\x1f\x8b\x08\x00":             Gzip,
		"\x28\xb5\x2f":                 None,
		"\x28\xb5\x2f\xfd\x00\x00":     Zstd,
		"\x50\x2a\x4d\x18\x00\x00":     Zstd,
		"\x5f\x2a\x4d\x18":             Zstd,
		"\x60\x2a\x4d\x18":             None,
		"\x50\x2a\x4d":                 None,
		"\xfd7zXZ\x00":                 Xz,
		"\xfd7zXZ":                     None,
		"BZh9":                         Bzip2,
		"\x00\x28\xb5\x2f\xfd\x28\xb5": None,
	} {
		if got := Of([]byte(head)); got != want {
			t.Errorf("%q: %d, want %d", head, got, want)
		}
	}
}

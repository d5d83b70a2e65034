package ext4

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStoredACL(t *testing.T) {
	t.Parallel()
	const undefined = "\xff\xff\xff\xff"
	in := "\x02\x00\x00\x00" + "\x01\x00\x07\x00" + undefined + "\x02\x00\x05\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00" + undefined +
		"\x10\x00\x05\x00" + undefined + "\x20\x00\x04\x00" + undefined
	want := "\x01\x00\x00\x00" + "\x01\x00\x07\x00" + "\x02\x00\x05\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00" + "\x10\x00\x05\x00" + "\x20\x00\x04\x00"
	got, err := storedACL(in)
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	for _, bad := range []string{"", want, "\x02\x00\x00\x00\x01", "\x03\x00\x00\x00", "\x02\x00\x00\x00\x77\x00\x07\x00" + undefined} {
		if _, err := storedACL(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

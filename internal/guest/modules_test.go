package guest

import (
	"encoding/binary"
	"strings"
	"testing"
)

func TestUnsigned(t *testing.T) {
	t.Parallel()
	const mark = "~Module signature appended~\n"
	signed := func(body, signature string, size uint32) string {
		return body + signature + strings.Repeat("\x00", 8) + string(binary.BigEndian.AppendUint32(nil, size)) + mark
	}
	lies := signed("body", "sig", 100)
	for name, tt := range map[string]struct{ in, want string }{
		"signed":               {signed("body", "signature", 9), "body"},
		"not signed":           {"body", "body"},
		"empty":                {"", ""},
		"the mark alone":       {mark, mark},
		"a length that is off": {lies, lies},
	} {
		if got := string(unsigned([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func FuzzUnsigned(f *testing.F) {
	f.Add([]byte("body~Module signature appended~\n"))
	f.Fuzz(func(t *testing.T, module []byte) {
		if got := unsigned(module); !strings.HasPrefix(string(module), string(got)) {
			t.Errorf("%q is no beginning of %q", got, module)
		}
	})
}

package ui

import (
	"bytes"
	"strings"
	"testing"
)

func TestSift(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"text":         {"plain\tüber 日本\r\nnext", "plain\tüber 日本\r\nnext"},
		"colour":       {"\x1b[1;31mred\x1b[0m \x1b[38:5:4mx\x1b[m", "\x1b[1;31mred\x1b[0m \x1b[38:5:4mx\x1b[m\x1b[0m"},
		"cursor":       {"a\x1b[2J\x1b[10;10Hb\x1b[?1049hc", "abc"},
		"window title": {"a\x1b]0;owned\ab\x1b]52;c;ZWNobw==\x1b\\c", "abc"},
		"answers":      {"a\x1b[6n\x1b[c\x1bP$qm\x1b\\\x1bZb\x05", "ab"},
		"charset":      {"a\x1b(0b\x1bc\x0e\x0fc", "abc"},
		"modify keys":  {"a\x1b[>4;1mb", "ab"},
		"C1":           {"a\u009b2Jb\u0090c\x7f\b\a", "a2Jbc"},
		"unfinished":   {"a\x1b]0;title\nb\x1b[31\nc", "a\nb\nc"},
		"long":         {"a\x1b[" + strings.Repeat("1;", 40) + "mb", "ab"},
	} {
		for _, size := range []int{1, 2, 3, 1000} { // however it is cut
			var out bytes.Buffer
			s := NewSift(&out)
			for in := []byte(tt.in); len(in) > 0; {
				n := min(size, len(in))
				if k, err := s.Write(in[:n]); k != n || err != nil {
					t.Fatal(k, err)
				}
				in = in[n:]
			}
			if err := s.Close(); err != nil || out.String() != tt.want {
				t.Errorf("%s, %d at a time: %q, want %q (%v)", name, size, out.String(), tt.want, err)
			}
		}
	}
}

func FuzzSift(f *testing.F) {
	f.Add([]byte("a\x1b[31mb\x1b]0;x\ac"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole, parts bytes.Buffer
		a, b := NewSift(&whole), NewSift(&parts)
		if _, err := a.Write(data); err != nil {
			t.Fatal(err)
		}
		for i := range data {
			if _, err := b.Write(data[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if whole.String() != parts.String() {
			t.Errorf("%q: %q in one, %q in pieces", data, whole.String(), parts.String())
		}
		for _, bad := range []string{"\a", "\b", "\x1b]", "\x1bP", "\x1bc", "\x7f"} {
			if strings.Contains(whole.String(), bad) {
				t.Errorf("%q let %q through", data, bad)
			}
		}
	})
}

package vm

import (
	"bytes"
	"strings"
	"unicode"
)

const maxLine = 300

// oneLine makes bytes from a guest or a VMM fit for a message: printable, on
// one line, not long.
func oneLine(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(clip(s, maxLine), "?"))
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// findLastWords looks in the end of a console for the line that says why the
// guest gave up.
func findLastWords(tail []byte) string {
	for _, mark := range []string{"banger-guest: cannot", "Kernel panic - not syncing"} {
		if i := bytes.LastIndex(tail, []byte(mark)); i >= 0 {
			line, _, _ := bytes.Cut(tail[i:], []byte("\n"))
			return oneLine(string(line))
		}
	}
	return ""
}

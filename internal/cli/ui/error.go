package ui

import (
	"strings"
	"unicode"

	"github.com/bangervm/banger/api"
)

// Error prints err on stderr: in JSON one line {"error":…}, else the message,
// the candidates, unless the message names them all, and the hint. withKind names the kind too, for where the exit
// code does not tell it.
func (c *Console) Error(err error, asJSON, withKind bool) {
	e := api.AsError(err)
	if asJSON {
		b, encErr := encode(api.ErrorReply{Error: e}, "")
		if encErr == nil {
			c.errLine(strings.TrimSuffix(string(b), "\n"))
			return
		}
	}
	label := "error: "
	if withKind {
		label = "error (" + string(e.Kind) + "): "
	}
	c.errLine(c.errPaint(red, label) + Clean(e.Message))
	if !says(e.Message, e.Candidates) {
		for _, name := range e.Candidates {
			c.errLine("  " + Clean(name))
		}
	}
	if e.Hint != "" {
		c.errLine(c.errPaint(grey, "hint: ") + Clean(e.Hint))
	}
}

// says tells whether a message has all of the names, as words.
func says(message string, names []string) bool {
	words := map[string]bool{}
	for _, w := range strings.FieldsFunc(message, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`,;?"'()`, r) }) {
		words[strings.TrimRight(w, ".:")] = true
	}
	for _, n := range names {
		if !words[n] {
			return false
		}
	}
	return true
}

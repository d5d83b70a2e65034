package ui

import (
	"strings"

	"github.com/bangervm/banger/api"
)

// Error prints err on stderr: in JSON one line {"error":…}, else the message,
// the candidates and the hint. withKind names the kind too, for where the exit
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
	for _, name := range e.Candidates {
		c.errLine("  " + Clean(name))
	}
	if e.Hint != "" {
		c.errLine(c.errPaint(grey, "hint: ") + Clean(e.Hint))
	}
}

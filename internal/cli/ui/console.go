package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// Progress modes.
const (
	ProgressAuto  = "auto"
	ProgressPlain = "plain"
	ProgressJSON  = "json"
	ProgressNone  = "none"
)

// Console is where a command speaks. Its methods may be called concurrently.
type Console struct {
	Out, Err io.Writer
	// OutTTY and ErrTTY say which of them are terminals.
	OutTTY, ErrTTY bool
	// NoColor is set by NO_COLOR or a dumb terminal.
	NoColor bool
	// JSON asks for one JSON document on stdout, Format for a Go template over
	// the same object.
	JSON   bool
	Format string
	// Quiet drops notes and progress.
	Quiet    bool
	Progress string
	// Width of the terminal, asked at each use; nil means 80.
	Width func() int

	mu   sync.Mutex // of Err
	live int        // lines of live progress on Err now, 0 or 1
}

// Note tells people on stderr what happened.
func (c *Console) Note(format string, args ...any) {
	if !c.Quiet && !c.JSON {
		c.errLine(fmt.Sprintf(format, args...))
	}
}

// Warn tells people on stderr what they should look after.
func (c *Console) Warn(format string, args ...any) {
	c.errLine(c.errPaint(yellow, "warning: ") + fmt.Sprintf(format, args...))
}

// errLine prints one line on stderr, above live progress if there is any.
func (c *Console) errLine(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wipe()
	fmt.Fprintln(c.Err, s)
}

// wipe removes the live line; mu is held.
func (c *Console) wipe() {
	if c.live > 0 {
		io.WriteString(c.Err, "\r\x1b[K")
		c.live = 0
	}
}

// A colour is the parameter of an SGR sequence.
type colour string

const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	grey   colour = "90"
	bold   colour = "1"
)

func (c *Console) errPaint(k colour, s string) string { return paint(c.ErrTTY && !c.NoColor, k, s) }
func (c *Console) outPaint(k colour, s string) string { return paint(c.OutTTY && !c.NoColor, k, s) }

func paint(on bool, k colour, s string) string {
	if !on || k == "" || s == "" {
		return s
	}
	return "\x1b[" + string(k) + "m" + s + "\x1b[0m"
}

// Clean makes text from outside (names, messages, stages) safe to print in a
// line: control characters become spaces, so that it can move no cursor.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

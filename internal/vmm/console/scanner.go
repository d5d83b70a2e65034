package console

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// maxLine is how much of a line is kept.
const maxLine = 512

const panicMark = "Kernel panic - not syncing: "

// Scanner looks for a kernel panic in the console output written to it. The
// guest can print what it likes, so what is found is what the guest says. The
// zero value is ready; it is safe for concurrent use.
type Scanner struct {
	// Marks are other texts to look for, Marked what is called, from Write, with
	// each line that has one inside, once it has ended; of a long line, with its
	// end. Set before the first Write, if at all.
	Marks  []string
	Marked func(line string)

	mu    sync.Mutex
	line  []byte // of the line under way, maxLine at most
	found string
	ended bool // the line with the panic is complete
}

// Write takes the next output. It never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(p)
	for len(p) > 0 && (!s.ended || len(s.Marks) > 0) {
		part, rest, newline := bytes.Cut(p, []byte{'\n'})
		p = rest
		s.take(part)
		if text, ok := bytes.CutPrefix(s.line, []byte(panicMark)); ok && !s.ended {
			s.found = clean(text)
			s.ended = newline
		}
		if newline && slices.ContainsFunc(s.Marks, func(mark string) bool { return bytes.Contains(s.line, []byte(mark)) }) {
			s.Marked(string(s.line))
		}
		if newline {
			s.line = s.line[:0]
		}
	}
	return n, nil
}

// take adds to the line. What the kernel prints may follow anything that a program
// left without an end, so of a long line the last part is kept; of a panic's the first.
func (s *Scanner) take(part []byte) {
	s.line = append(s.line, part...)
	if i := bytes.Index(s.line, []byte(panicMark)); i >= 0 && !s.ended {
		s.line = append(s.line[:0], s.line[i:]...)
		s.line = s.line[:min(len(s.line), maxLine)]
		return
	}
	if over := len(s.line) - maxLine; over > 0 {
		s.line = append(s.line[:0], s.line[over:]...)
	}
}

// Panic is the text of the first panic seen, and whether there was one.
func (s *Scanner) Panic() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found, s.found != ""
}

// clean makes the guest's text fit to be shown: printable ASCII, one line.
func clean(text []byte) string {
	t := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(text))
	if t = strings.TrimSpace(t); t == "" {
		return "no text"
	}
	return t
}

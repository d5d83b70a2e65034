package ui

import (
	"io"
	"unicode"
	"unicode/utf8"
)

// maxSGR is the longest colour sequence that passes, in bytes.
const maxSGR = 32

// Sift passes what a machine said on to a terminal: text, line ends, tabs and
// colours. Every other control sequence, which could move the cursor, rename the
// window or make the terminal type, is left out.
type Sift struct {
	w     io.Writer
	state siftState
	seq   []byte // of an escape sequence that may be a colour
	part  []byte // the beginning of a character
	out   []byte
	tint  bool // a colour has passed
}

type siftState int

const (
	siftText   siftState = iota
	siftEscape           // behind ESC
	siftCSI              // behind ESC [
	siftString           // in the text of an OSC, DCS, …: to BEL, ST or the line's end
	siftOther            // in a sequence of another kind
)

// NewSift writes to w.
func NewSift(w io.Writer) *Sift { return &Sift{w: w} }

// Write never keeps more than a character or a colour sequence back.
func (s *Sift) Write(p []byte) (int, error) {
	s.out = s.out[:0]
	rest := p
	if len(s.part) > 0 {
		rest = append(s.part, p...)
	}
	for len(rest) > 0 && (utf8.FullRune(rest) || len(rest) >= utf8.UTFMax) {
		r, n := utf8.DecodeRune(rest)
		s.take(r, rest[:n])
		rest = rest[n:]
	}
	s.part = append([]byte(nil), rest...)
	if _, err := s.w.Write(s.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close puts the terminal's colour back.
func (s *Sift) Close() error {
	if !s.tint {
		return nil
	}
	_, err := io.WriteString(s.w, "\x1b[0m")
	return err
}

func (s *Sift) take(r rune, b []byte) {
	const esc = 0x1b
	switch {
	case r == esc:
		s.state, s.seq = siftEscape, append(s.seq[:0], esc)
		return
	case r == '\n':
		s.state = siftText
	}
	switch s.state {
	case siftText:
		if r == '\n' || r == '\t' || r == '\r' || !unicode.IsControl(r) {
			s.out = append(s.out, b...)
		}
	case siftEscape:
		switch {
		case r == '[':
			s.state, s.seq = siftCSI, append(s.seq, '[')
		case r == ']' || r == 'P' || r == 'X' || r == '^' || r == '_':
			s.state = siftString
		case r >= 0x20 && r < 0x30:
			s.state = siftOther
		default:
			s.state = siftText
		}
	case siftCSI:
		switch {
		case r == 'm' && s.seq != nil:
			s.out, s.tint = append(append(s.out, s.seq...), 'm'), true
			s.state = siftText
		case r >= 0x40 && r <= 0x7e:
			s.state = siftText
		case len(s.seq) >= maxSGR || (r < '0' || r > '9') && r != ';' && r != ':':
			s.seq = nil // no colour
		case s.seq != nil:
			s.seq = append(s.seq, b...)
		}
	case siftOther:
		if r >= 0x30 && r <= 0x7e {
			s.state = siftText
		}
	case siftString:
		if r == '\a' {
			s.state = siftText
		}
	}
}

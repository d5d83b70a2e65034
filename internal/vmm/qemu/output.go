package qemu

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
)

// limited passes the first bytes on and swallows the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if n := min(l.left, len(p)); n > 0 {
		l.left -= n
		if _, err := l.w.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// maxLog bounds the log file of what QEMU says, in bytes.
const maxLog = 256 << 10

// maxTail is how much of QEMU's last words is kept for errors, in bytes.
const maxTail = 4 << 10

// output takes what QEMU prints: into the log file, bounded, and the end of it
// into memory.
type output struct {
	file *os.File // nil: none

	mu      sync.Mutex
	written int
	tail    []byte
}

// newOutput empties the log file; an empty path means none.
func newOutput(path string) (*output, error) {
	if path == "" {
		return &output{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &output{file: f}, nil
}

// Write never fails: QEMU must not stop for its log.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := min(maxLog-o.written, len(p)); n > 0 && o.file != nil {
		o.written += n
		o.file.Write(p[:n])
	}
	o.tail = append(o.tail, p...)
	if len(o.tail) > maxTail {
		o.tail = bytes.Clone(o.tail[len(o.tail)-maxTail:])
	}
	return len(p), nil
}

// all is the end of what was said.
func (o *output) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.tail)
}

// last is the last line that is not empty, without the program's name.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(o.tail)), "\n")
	_, text, found := strings.Cut(lines[len(lines)-1], programName+": ")
	if !found {
		text = lines[len(lines)-1]
	}
	return strings.TrimSpace(text)
}

func (o *output) close() {
	if o.file != nil {
		o.file.Close()
	}
}

package child

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
)

// maxLog bounds the log file of what a VMM says, in bytes.
const maxLog = 256 << 10

// maxTail is how much of its last words is kept for errors, in bytes.
const maxTail = 4 << 10

// Output takes what a VMM prints: into the log file, bounded, and the end of it
// into memory.
type Output struct {
	file *os.File // nil: none

	mu      sync.Mutex
	written int
	tail    []byte
}

// NewOutput empties the log file; an empty path means none.
func NewOutput(path string) (*Output, error) {
	if path == "" {
		return &Output{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Output{file: f}, nil
}

// Write never fails: a VMM must not stop for its log.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := min(maxLog-o.written, len(p)); n > 0 && o.file != nil {
		o.written += n
		_, _ = o.file.Write(p[:n])
	}
	o.tail = append(o.tail, p...)
	if len(o.tail) > maxTail {
		o.tail = bytes.Clone(o.tail[len(o.tail)-maxTail:])
	}
	return len(p), nil
}

// All is the end of what was said.
func (o *Output) All() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.tail)
}

// Last is the last line that is not empty.
func (o *Output) Last() string {
	lines := strings.Split(strings.TrimSpace(o.All()), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// Close closes the log file.
func (o *Output) Close() {
	if o.file != nil {
		_ = o.file.Close()
	}
}

// Limited passes the first Left bytes on and swallows the rest.
type Limited struct {
	W    io.Writer
	Left int
}

func (l *Limited) Write(p []byte) (int, error) {
	if n := min(l.Left, len(p)); n > 0 {
		l.Left -= n
		if _, err := l.W.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

package console

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
)

// maxHeard bounds what a Listener keeps of the console, in bytes.
const maxHeard = 8 << 10

// Listener is a console that waits for a text. Listen makes one.
type Listener struct {
	First chan struct{} // closed at the first output
	Found chan struct{} // closed when the text was printed

	mu    sync.Mutex
	text  []byte
	heard []byte // the last of it
	any   bool
	done  bool
}

// Listen makes a Listener for the text.
func Listen(text string) *Listener {
	return &Listener{text: []byte(text), First: make(chan struct{}), Found: make(chan struct{})}
}

// Write takes the next output. It never fails.
func (l *Listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.any && len(p) > 0 {
		l.any = true
		close(l.First)
	}
	l.heard = append(l.heard, p...)
	if !l.done && bytes.Contains(l.heard, l.text) {
		l.done = true
		close(l.Found)
	}
	if over := len(l.heard) - maxHeard; over > 0 {
		l.heard = append(l.heard[:0], l.heard[over:]...)
	}
	return len(p), nil
}

// Last is the last line there was, quoted, to be shown.
func (l *Listener) Last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(l.heard)), "\n")
	return fmt.Sprintf("%.200q", strings.TrimSpace(lines[len(lines)-1]))
}

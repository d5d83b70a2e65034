package probe

import (
	"bytes"
	"sync"
)

// maxHeard bounds what is kept of the console, in bytes.
const maxHeard = 8 << 10

// listener is a console that waits for a word.
type listener struct {
	word  []byte
	first chan struct{} // closed at the first output
	found chan struct{} // closed when the word was said

	mu    sync.Mutex
	heard []byte
	any   bool
	done  bool
}

func newListener(word string) *listener {
	return &listener{word: []byte(word), first: make(chan struct{}), found: make(chan struct{})}
}

func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.any && len(p) > 0 {
		l.any = true
		close(l.first)
	}
	if !l.done {
		l.heard = append(l.heard, p...)
		if bytes.Contains(l.heard, l.word) {
			l.done = true
			close(l.found)
		}
		if over := len(l.heard) - maxHeard; over > 0 {
			l.heard = bytes.Clone(l.heard[over:])
		}
	}
	return len(p), nil
}

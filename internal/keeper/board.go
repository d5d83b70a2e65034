package keeper

import "sync"

// board holds the state and tells those who watch of each change.
type board struct {
	mu      sync.Mutex
	state   State
	changed chan struct{} // closed at the next change
}

func newBoard(s State) *board { return &board{state: s, changed: make(chan struct{})} }

// read gives the state and a channel that is closed when it is out of date.
func (b *board) read() (State, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.changed
}

func (b *board) update(f func(*State)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.state)
	close(b.changed)
	b.changed = make(chan struct{})
}

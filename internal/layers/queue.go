package layers

import "sync"

// piece is a part of an uncompressed layer: in memory, or in the spool.
type piece struct {
	chunk []byte // nil when spooled
	kept  bool   // counted by the meter
	at    int64
	n     int // of what is in the spool
}

// queue is pieces on their way, as many as come: who puts them in bounds them.
type queue struct {
	mu     sync.Mutex
	moved  sync.Cond
	list   []piece
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.moved.L = &q.mu
	return q
}

func (q *queue) push(p piece) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, p)
	q.moved.Signal()
}

// pop waits for the next piece; false when none comes any more.
func (q *queue) pop() (piece, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.list) == 0 && !q.closed {
		q.moved.Wait()
	}
	if len(q.list) == 0 {
		return piece{}, false
	}
	p := q.list[0]
	q.list[0] = piece{}
	q.list = q.list[1:]
	return p, true
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.moved.Signal()
}

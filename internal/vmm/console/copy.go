package console

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// backlog is how many bytes wait for a slow writer before output is lost.
const backlog = 256 << 10

// drainTime bounds the wait for a slow writer after the source's end.
const drainTime = 2 * time.Second

// Copy reads src to its end and writes it to dst. When dst is so slow that
// the backlog is full, what comes is dropped and a line in the output says how
// much. Every byte read goes through the scanner too, lost or not. Copy returns
// when src ended and dst took the rest, or drainTime later; an error of dst
// loses what would follow and nothing else.
func Copy(dst io.Writer, src io.Reader, scan *Scanner) {
	b := &buffer{wake: make(chan struct{}, 1)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		b.drain(dst)
	}()
	p := make([]byte, 16<<10)
	for {
		n, err := src.Read(p)
		if n > 0 {
			scan.Write(p[:n])
			b.put(p[:n])
		}
		if err != nil {
			break
		}
	}
	b.end()
	select {
	case <-written:
	case <-time.After(drainTime):
		// dst is stuck: its owner unblocks it, and with it the writing
		// goroutine, by closing it.
	}
}

// buffer is the backlog between the reading and the writing side.
type buffer struct {
	wake chan struct{} // holds one: something changed

	mu    sync.Mutex
	data  []byte
	lost  int64
	ended bool
}

func (b *buffer) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *buffer) put(p []byte) {
	b.mu.Lock()
	if len(b.data)+len(p) > backlog {
		b.lost += int64(len(p))
	} else {
		b.data = append(b.data, p...)
	}
	b.mu.Unlock()
	b.signal()
}

func (b *buffer) end() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.signal()
}

// take gives what waits, keeping spare for the next output.
func (b *buffer) take(spare []byte) (data []byte, lost int64, ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, lost, ended = b.data, b.lost, b.ended
	if cap(spare) > 32<<10 {
		spare = nil // a flood is over: give its memory back
	}
	b.data, b.lost = spare[:0], 0
	return data, lost, ended
}

func (b *buffer) drain(dst io.Writer) {
	var spare []byte
	for {
		data, lost, ended := b.take(spare)
		if lost > 0 {
			data = fmt.Appendf(data, "\n[banger: %d bytes of console output lost]\n", lost)
		}
		if len(data) > 0 {
			dst.Write(data) // an error loses this output only
		}
		spare = data
		if len(data) == 0 {
			if ended {
				return
			}
			<-b.wake
		}
	}
}

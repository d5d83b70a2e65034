package ext4

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	chunkSize = 1 << 20 // of what is written at once
	chunks    = 6       // that there are: one being filled, the others on their way
)

// output appends blocks to a file. What is full goes to a goroutine of its own,
// so that the disk and the source work side by side.
type output struct {
	f    *os.File
	most uint32 // blocks the file may have
	next uint32 // the block that the next byte goes to, once buf is on the disk
	buf  []byte // filled so far; always whole blocks between two calls
	full chan chunk
	free chan []byte
	done chan error
	err  error // the writer's, once known
}

type chunk struct {
	at  int64
	buf []byte
}

func newOutput(f *os.File, first, most uint32) *output {
	o := &output{f: f, most: most, next: first, full: make(chan chunk, chunks), free: make(chan []byte, chunks), done: make(chan error, 1)}
	for range chunks - 1 {
		o.free <- nil // made when first needed
	}
	o.buf = make([]byte, 0, chunkSize)
	go o.write()
	return o
}

// write is the goroutine. After an error it only gives buffers back.
func (o *output) write() {
	var err error
	for c := range o.full {
		if err == nil {
			_, err = o.f.WriteAt(c.buf, c.at)
			if err == nil {
				// The disk begins now, so that the last sync finds little left. It is
				// a hint: where it is not understood, sync does all.
				_ = unix.SyncFileRange(int(o.f.Fd()), c.at, int64(len(c.buf)), unix.SYNC_FILE_RANGE_WRITE)
			}
			if err != nil {
				o.done <- err // there is room for one
			}
		}
		o.free <- c.buf[:0]
	}
	close(o.done)
}

// pos is the block the next byte goes to.
func (o *output) pos() uint32 { return o.next + uint32(len(o.buf)/blockSize) }

// room gives n bytes to fill, n ≤ chunkSize, and grow says how many were.
func (o *output) room(n int) ([]byte, error) {
	if cap(o.buf)-len(o.buf) < n {
		if err := o.flush(); err != nil {
			return nil, err
		}
	}
	return o.buf[len(o.buf) : len(o.buf)+n], nil
}

func (o *output) grow(n int) error {
	if n%blockSize != 0 {
		panic("ext4: a part of a block was written")
	}
	if int64(o.pos())+int64(n/blockSize) > int64(o.most) {
		return fmt.Errorf("file system is larger than %d GiB", int64(o.most)*blockSize>>30)
	}
	o.buf = o.buf[:len(o.buf)+n]
	return nil
}

// append writes whole blocks.
func (o *output) append(b []byte) error {
	for len(b) > 0 {
		part := b[:min(len(b), chunkSize)]
		to, err := o.room(len(part))
		if err != nil {
			return err
		}
		copy(to, part)
		if err := o.grow(len(part)); err != nil {
			return err
		}
		b = b[len(part):]
	}
	return nil
}

// flush hands what is buffered to the writer.
func (o *output) flush() error {
	if o.err == nil {
		select {
		case o.err = <-o.done:
		default:
		}
	}
	if o.err != nil {
		return o.err
	}
	if len(o.buf) == 0 {
		return nil
	}
	o.full <- chunk{int64(o.next) * blockSize, o.buf}
	o.next = o.pos()
	if o.buf = <-o.free; cap(o.buf) == 0 {
		o.buf = make([]byte, 0, chunkSize)
	}
	return nil
}

// close waits until all is written. It may be called once.
func (o *output) close() error {
	err := o.flush()
	close(o.full)
	for werr := range o.done {
		if err == nil {
			err = werr
		}
	}
	return err
}

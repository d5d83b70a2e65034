package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// zstdMagic begins a zstd frame (RFC 8878, section 3.1.1).
const zstdMagic = 0xFD2FB528

// frame passes one zstd frame on and ends with it, so that what follows is seen.
// The decoder alone would go on with the next frame, skip frames it does not
// know, and take a few bytes too many for the end.
type frame struct {
	r    io.Reader
	head []byte // read, and to be passed on first
	left int64  // bytes of the block's content to pass on
	next func(*frame) error
	sum  bool // four bytes of checksum follow the last block
}

func newFrame(r io.Reader) *frame { return &frame{r: r, next: (*frame).header} }

func (f *frame) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(f.head) > 0 {
			n := copy(p, f.head)
			f.head = f.head[n:]
			return n, nil
		}
		if f.left > 0 {
			n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
			f.left -= int64(n)
			if errors.Is(err, io.EOF) && f.left > 0 {
				return n, io.ErrUnexpectedEOF
			}
			if n > 0 || err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
			continue
		}
		if err := f.next(f); err != nil {
			return 0, err
		}
	}
}

// take reads n bytes more to be passed on.
func (f *frame) take(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(f.r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	f.head = append(f.head, b...)
	return b, nil
}

func (f *frame) header() error {
	b, err := f.take(5)
	if err != nil {
		return fmt.Errorf("it ends too early: %w", err)
	}
	if binary.LittleEndian.Uint32(b) != zstdMagic {
		return errors.New("it is not compressed with zstd")
	}
	descriptor := b[4]
	single := descriptor >> 5 & 1
	more := int(1 - single)                              // window
	more += []int{0, 1, 2, 4}[descriptor&3]              // dictionary
	more += []int{int(single), 2, 4, 8}[descriptor>>6&3] // content's size
	f.sum = descriptor>>2&1 == 1
	f.next = (*frame).block
	if more == 0 {
		return nil
	}
	_, err = f.take(more)
	return err
}

func (f *frame) block() error {
	b, err := f.take(3)
	if err != nil {
		return err
	}
	head := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.left = int64(head >> 3)
	switch head >> 1 & 3 {
	case 1: // one byte, repeated
		f.left = 1
	case 3:
		return errors.New("its compression is corrupt")
	}
	if head&1 == 1 {
		f.next = (*frame).last
	}
	return nil
}

func (f *frame) last() error {
	f.next = func(*frame) error { return io.EOF }
	if !f.sum {
		return nil
	}
	_, err := f.take(4)
	return err
}

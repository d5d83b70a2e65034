package ext4

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

const (
	maxFile = 128 << 30 // bytes
	// maxHoles bounds the runs of a file: with those of its size they fit into
	// one level of blocks of extents. Zeros after that many holes are written.
	maxHoles = 300
)

// File makes a regular file, without a name yet, of size bytes from r. Blocks of
// zeros are holes.
func (b *Builder) File(a Attr, size int64, r io.Reader) (Node, error) {
	if size < 0 || size > maxFile {
		return 0, fmt.Errorf("file of %d bytes: a file has at most %d", size, int64(maxFile))
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fmt.Errorf("mode %o is no file's", a.Mode)
	}
	id, n := b.add()
	if err := b.set(n, a); err != nil {
		return 0, err
	}
	n.size = size
	w := runs{out: b.out}
	for done := int64(0); done < size; {
		got, err := w.copy(r, size-done)
		if err != nil {
			return 0, err
		}
		done += int64(got)
	}
	switch {
	case len(w.list) == 1 && w.list[0].logical == 0:
		n.start, n.count = w.list[0].start, w.list[0].count
	case len(w.list) > 0:
		var list []extent
		for _, e := range w.list {
			list = split(list, e)
		}
		n.extra().extents = list
	}
	return id, nil
}

// runs collects where a file's blocks went.
type runs struct {
	out  *output
	list []extent
	at   uint32 // the file's next block
}

// copy takes up to left bytes from r, less if that is what is handy.
func (w *runs) copy(r io.Reader, left int64) (int, error) {
	const most = 256 << 10
	want := int(min(left, most))
	room, err := w.out.room((want + blockSize - 1) &^ (blockSize - 1))
	if err != nil {
		return 0, err
	}
	if n, err := io.ReadFull(r, room[:want]); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF { // not what r wraps to say why
			err = fmt.Errorf("file is cut short: %d bytes are missing", left-int64(n))
		}
		return 0, err
	}
	clear(room[want:])
	kept := 0
	for from := 0; from < len(room); from += blockSize {
		block := room[from : from+blockSize]
		if isZero(block) && len(w.list) < maxHoles {
			w.at++
			continue
		}
		if kept != from {
			copy(room[kept:], block)
		}
		w.block(w.out.pos() + uint32(kept/blockSize))
		kept += blockSize
	}
	return want, w.out.grow(kept)
}

// block notes that the file's next block is at start.
func (w *runs) block(start uint32) {
	if i := len(w.list) - 1; i >= 0 {
		if e := &w.list[i]; e.logical+e.count == w.at && e.start+e.count == start {
			e.count++
			w.at++
			return
		}
	}
	w.list = append(w.list, extent{w.at, start, 1})
	w.at++
}

func isZero(b []byte) bool {
	if b[0] != 0 || b[len(b)-1] != 0 {
		return false
	}
	for ; len(b) >= 8; b = b[8:] {
		if le.Uint64(b) != 0 {
			return false
		}
	}
	return true
}

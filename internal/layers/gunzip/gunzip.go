// Package gunzip reads gzip faster than the libraries in Go do: unpacking is most
// of what an image's layers cost. It decodes from a 64-bit buffer with one table
// look-up a symbol and copies matches by words. What it takes and refuses is what
// compress/gzip does, which a fuzz target holds. Start at NewReader.
package gunzip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// ErrFormat is for what is no gzip, or corrupt.
var ErrFormat = errors.New("gzip is corrupt")

const (
	inSize  = 256 << 10
	window  = 32 << 10 // how far back a match may reach
	outSize = 256 << 10
	margin  = 16 // bytes readable behind the input, and writable behind the output
)

// Reader gives the content of a gzip stream of one or more members.
type Reader struct {
	src io.Reader
	err error // of src or of the format; what was decoded before comes first

	in       []byte // with margin behind end
	pos, end int    // of in
	base     int64  // of in, in what was read
	eof      bool   // nothing comes after end
	bits     uint64
	count    uint // of bits

	out          []byte // window and more, with margin behind
	given, write int    // of out
	start        int    // of the member, or of what is left of it, in out

	inBlock, last, stored bool
	storedLeft            int
	begun                 bool // a member has begun
	resumed               bool // and so its sum is not known
	skip                  uint // bits to drop first

	lit  [litTable]uint32
	dist [distTable]uint32
	sum  uint32
	size uint32

	all, marked int64 // bytes of content; at the last point
	partSum     uint32
	every       int64
	note        func(Point)
}

// Point is a place within a stream where reading can begin.
type Point struct {
	In     int64  `json:"in"`     // bits of the stream before it
	Out    int64  `json:"out"`    // bytes of content before it
	Window []byte `json:"window"` // the last of these, up to 32 KiB
	Sum    uint32 `json:"sum"`    // CRC-32 (IEEE) of those since the point before
}

// Mark has note called with a point about every so many bytes of content, from
// within Read, and with one for the end, where nothing is left to read.
func (z *Reader) Mark(every int64, note func(Point)) { z.every, z.note = every, note }

// mark notes the place, if it is one and far enough from the last.
func (z *Reader) mark() {
	if z.note == nil || !z.begun || z.inBlock || z.last || z.all-z.marked < z.every {
		return
	}
	z.marked = z.all
	z.point(z.out[max(z.start, z.write-window):z.write])
}

func (z *Reader) point(before []byte) {
	z.note(Point{In: (z.base+int64(z.pos))*8 - int64(z.count), Out: z.all, Window: bytes.Clone(before), Sum: z.partSum})
	z.partSum = 0
}

// NewReaderAt reads from a point on; r begins at byte p.In/8 of the stream. What
// is left of the member there is not checked against the member's sum.
func NewReaderAt(r io.Reader, p Point) *Reader {
	z := NewReader(r)
	z.begun, z.resumed, z.skip = true, true, uint(p.In%8)
	z.write = copy(z.out[:window], p.Window)
	z.given = z.write
	return z
}

// NewReader reads from r, ahead of what it gives.
func NewReader(r io.Reader) *Reader {
	return &Reader{src: r, in: make([]byte, inSize+margin), out: make([]byte, outSize+maxMatch+2*margin)}
}

// Read gives what is decoded. The error for an input cut short is
// io.ErrUnexpectedEOF.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.given == z.write {
		if z.err != nil {
			return 0, z.err
		}
		if z.write >= outSize {
			copy(z.out, z.out[z.write-window:z.write])
			z.start = max(z.start-(z.write-window), 0)
			z.given, z.write = window, window
		}
		z.mark()
		from := z.write
		z.err = z.step()
		z.all += int64(z.write - from)
		if !z.resumed {
			z.sum = crc32.Update(z.sum, crc32.IEEETable, z.out[from:z.write])
		}
		if z.note != nil {
			z.partSum = crc32.Update(z.partSum, crc32.IEEETable, z.out[from:z.write])
			if z.err == io.EOF {
				z.point(nil)
			}
		}
		z.size += uint32(z.write - from)
	}
	n := copy(p, z.out[z.given:z.write])
	z.given += n
	return n, nil
}

// step decodes a part of a member; io.EOF is the end of all.
func (z *Reader) step() error {
	switch {
	case z.skip > 0:
		n := z.skip
		z.skip = 0
		_, err := z.take(n)
		return err
	case !z.begun:
		return z.header()
	case !z.inBlock && z.last:
		return z.trailer()
	case !z.inBlock:
		return z.block()
	case z.stored:
		return z.copyStored()
	}
	return z.huffman()
}

// fill makes 8 bytes readable at pos, which are zeros beyond the end.
func (z *Reader) fill() error {
	if z.end-z.pos >= 8 || z.eof {
		return z.overrun()
	}
	// The bytes in the buffer of bits stay: align may give them back.
	from := max(z.pos-8, 0)
	copy(z.in, z.in[from:z.end])
	z.base += int64(from)
	z.end, z.pos = z.end-from, z.pos-from
	for tries := 0; z.end-z.pos < 8 && !z.eof; tries++ {
		if tries > 100 {
			return io.ErrNoProgress
		}
		n, err := z.src.Read(z.in[z.end:inSize])
		z.end += n
		if err == io.EOF {
			z.eof = true
		} else if err != nil {
			return err
		}
	}
	clear(z.in[z.end : z.end+margin])
	return nil
}

// overrun is an error when bits beyond the end were used.
func (z *Reader) overrun() error {
	if z.eof && z.pos-int(z.count/8) > z.end {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// refill gives the buffer at least 56 bits.
func (z *Reader) refill() error {
	if z.end-z.pos < 8 {
		if err := z.fill(); err != nil {
			return err
		}
		if z.pos > z.end+8 {
			return io.ErrUnexpectedEOF
		}
	}
	z.bits |= binary.LittleEndian.Uint64(z.in[z.pos:]) << (z.count & 63)
	z.pos += int((63 - z.count) >> 3)
	z.count |= 56
	return nil
}

// take uses up n ≤ 32 bits.
func (z *Reader) take(n uint) (uint32, error) {
	if z.count < n {
		if err := z.refill(); err != nil {
			return 0, err
		}
	}
	v := uint32(z.bits & (1<<n - 1))
	z.bits >>= n
	z.count -= n
	return v, z.overrun()
}

// align drops bits up to the next byte, and gives the buffer's bytes back.
func (z *Reader) align() {
	z.pos -= int(z.count / 8)
	z.bits, z.count = 0, 0
}

// atEnd is true when no byte is left.
func (z *Reader) atEnd() (bool, error) {
	z.align()
	err := z.fill()
	return z.eof && z.pos >= z.end, err
}

func (z *Reader) header() error {
	var head [10]byte
	for i := range head {
		b, err := z.take(8)
		if err != nil {
			return err
		}
		head[i] = byte(b)
	}
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 {
		return ErrFormat
	}
	sum := crc32.ChecksumIEEE(head[:])
	next := func() (byte, error) {
		b, err := z.take(8)
		sum = crc32.Update(sum, crc32.IEEETable, []byte{byte(b)})
		return byte(b), err
	}
	if head[3]&4 != 0 { // extra fields
		low, err := next()
		if err != nil {
			return err
		}
		high, err := next()
		if err != nil {
			return err
		}
		for range int(low) | int(high)<<8 {
			if _, err := next(); err != nil {
				return err
			}
		}
	}
	for _, flag := range []byte{8, 16} { // name, comment
		if head[3]&flag == 0 {
			continue
		}
		for n := 0; ; n++ {
			b, err := next()
			if err != nil {
				return err
			}
			if b == 0 {
				break
			}
			if n >= 511 {
				return ErrFormat
			}
		}
	}
	if head[3]&2 != 0 {
		want := sum & 0xffff
		got, err := z.take(16)
		if err != nil {
			return err
		}
		if got != want {
			return ErrFormat
		}
	}
	z.begun, z.last, z.sum, z.size = true, false, 0, 0
	// Matches do not reach into the member before.
	z.start = z.write
	return nil
}

func (z *Reader) trailer() error {
	z.align()
	sum, err := z.take(32)
	if err != nil {
		return err
	}
	size, err := z.take(32)
	if err != nil {
		return err
	}
	if !z.resumed && (sum != z.sum || size != z.size) {
		return ErrFormat
	}
	z.begun, z.resumed = false, false
	end, err := z.atEnd()
	if err == nil && end {
		err = io.EOF
	}
	return err
}

// block begins the next one.
func (z *Reader) block() error {
	head, err := z.take(3)
	if err != nil {
		return err
	}
	z.last = head&1 != 0
	switch head >> 1 {
	case 0:
		z.align()
		n, err := z.take(16)
		if err != nil {
			return err
		}
		not, err := z.take(16)
		if err != nil {
			return err
		}
		if n != not^0xffff {
			return ErrFormat
		}
		z.align()
		z.stored, z.storedLeft = true, int(n)
	case 1:
		z.stored = false
		err = z.fixed()
	case 2:
		z.stored = false
		err = z.dynamic()
	default:
		err = ErrFormat
	}
	z.inBlock = err == nil
	return err
}

func (z *Reader) copyStored() error {
	for z.storedLeft > 0 && z.write < outSize {
		if err := z.fill(); err != nil {
			return err
		}
		n := copy(z.out[z.write:outSize], z.in[z.pos:min(z.end, z.pos+z.storedLeft)])
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		z.pos, z.write, z.storedLeft = z.pos+n, z.write+n, z.storedLeft-n
	}
	z.inBlock = z.storedLeft > 0
	return nil
}

package layers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/internal/compression"
	"github.com/bangervm/banger/internal/layers/gunzip"
)

const (
	ahead      = 3         // layers unpacked at once before their turn, at most
	chunkSize  = 512 << 10 // bytes passed on at once
	chunkCount = 56        // of a layer that are under way at most: 28 MiB
	keptCount  = 40        // of all layers that wait in memory for their turn, less than a layer has; more go to the spool
	zeroPiece  = 4 << 10   // so many zeros in a row are no content
	// maxWindow is the most that zstd's own tool gives a decoder, unasked.
	maxWindow = 128 << 20
)

// meter counts what all layers cost.
type meter struct {
	limits Limits
	total  int64 // compressed bytes, 0 when unknown
	report func(done, total int64)
	spare  chan []byte // chunks that no layer uses
	spool  *spool
	again  []byte // what the layer whose turn it is reads from the spool

	kept             atomic.Int64 // chunks
	in, out          atomic.Int64
	decompress, hash atomic.Int64  // nanoseconds
	merge, waited    time.Duration // of the reader
	reporting        sync.Mutex
}

func newMeter(layers []Layer, limits Limits, spool *spool, report func(done, total int64)) *meter {
	m := &meter{limits: limits, report: report, spool: spool, spare: make(chan []byte, (ahead+1)*chunkCount)}
	for _, l := range layers {
		if l.Size <= 0 {
			m.total = 0
			break
		}
		m.total += l.Size
	}
	return m
}

func (m *meter) read(n int) {
	done := m.in.Add(int64(n))
	if m.report != nil {
		m.reporting.Lock()
		defer m.reporting.Unlock()
		m.report(done, m.total)
	}
}

// chunk gives an empty one.
func (m *meter) chunk() []byte {
	select {
	case c := <-m.spare:
		return c
	default:
		return make([]byte, 0, chunkSize)
	}
}

// giveBack takes a chunk that nobody uses any more; nil is none.
func (m *meter) giveBack(c []byte) {
	if c == nil {
		return
	}
	select {
	case m.spare <- c[:0]:
	default:
	}
}

func (m *meter) stats(t *tree) Stats {
	return Stats{
		Members: t.members, Removed: t.removed, Uncompressed: m.out.Load(), Compressed: m.in.Load(),
		Spooled:    m.spool.used(),
		Decompress: time.Duration(m.decompress.Load()), Hash: time.Duration(m.hash.Load()), Merge: m.merge,
	}
}

// sourceError is what a layer's own reader said: not the layer's fault.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// stream is an uncompressed layer on its way: one goroutine decompresses, one
// hashes, the caller reads. Before its turn what does not fit into memory goes to
// the spool. wait ends both once the context is done.
type stream struct {
	layer Layer
	part  *part // nil for all of the layer
	meter *meter
	sum   hash.Hash // nil when the diff id is known
	done  sync.WaitGroup

	turn     chan struct{} // closed: it is being read
	unpacked chan struct{} // closed: all of it waits for its turn, or is read
	drop     chan struct{} // closed: nobody reads on
	free     chan []byte
	plain    chan []byte // from the decompressor
	summed   *queue      // to the reader
	err      error       // of the decompressor; read after summed is closed
	points   points      // of the decompressor; likewise
	ctx      context.Context
	current  []byte // what is left to read of chunk
	chunk    []byte
}

func open(ctx context.Context, u unit, m *meter) *stream {
	l := u.layer
	s := &stream{
		layer: l, part: u.part, meter: m, ctx: ctx, turn: make(chan struct{}), unpacked: make(chan struct{}), drop: make(chan struct{}),
		free: make(chan []byte, chunkCount), plain: make(chan []byte, chunkCount), summed: newQueue(),
	}
	if u.part == nil && (l.DiffID == "" || !l.Known) {
		s.sum = hashFor(l.DiffID)
	}
	for range chunkCount {
		s.free <- nil // made when first needed
	}
	s.done.Go(func() {
		defer close(s.plain)
		if err := s.unpack(); err != nil {
			s.err = err
		}
	})
	s.done.Go(func() {
		defer close(s.unpacked)
		defer s.summed.close()
		for c := range s.plain {
			if s.sum != nil {
				start := time.Now()
				_, _ = s.sum.Write(c)
				m.hash.Add(int64(time.Since(start)))
			}
			s.pass(c)
		}
	})
	return s
}

// pass gives a chunk to the reader, by the spool where it has to wait long.
func (s *stream) pass(c []byte) {
	select {
	case <-s.turn:
		s.summed.push(piece{chunk: c})
		return
	default:
	}
	if s.meter.kept.Add(1) <= keptCount {
		s.summed.push(piece{chunk: c, kept: true})
		return
	}
	s.meter.kept.Add(-1)
	at, ok := s.meter.spool.put(c)
	if !ok { // nobody unpacks more before the turn has come
		select {
		case <-s.turn:
		case <-s.ctx.Done():
		}
		s.summed.push(piece{chunk: c})
		return
	}
	s.summed.push(piece{at: at, n: len(c)})
	s.meter.giveBack(c)
	s.free <- nil // there is room for every chunk
}

// wait is for after the context's end, or after all was read.
func (s *stream) wait() { s.done.Wait() }

// unpack is the decompressor's goroutine.
func (s *stream) unpack() error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	rc, err := s.source()
	if err != nil {
		return &sourceError{err}
	}
	defer func() { _ = rc.Close() }()
	src := &source{r: rc, meter: s.meter}
	r, closer, err := s.decompressor(src)
	if err != nil {
		return s.rest(src, err)
	}
	defer closer()
	for content := int64(0); ; {
		var c []byte
		select {
		case c = <-s.free:
		case <-s.drop:
			return s.rest(src, nil)
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
		if c == nil {
			c = s.meter.chunk()
		}
		start := time.Now()
		n, err := fill(r, c[:chunkSize])
		s.meter.decompress.Add(int64(time.Since(start)))
		content += notZeros(c[:n])
		all := s.meter.out.Add(int64(n))
		s.plain <- c[:n] // there is room for every chunk
		switch limits := s.meter.limits; {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return s.rest(src, err)
		case all > limits.Bytes:
			return fmt.Errorf("the image unpacks to more than %d bytes", limits.Bytes)
		case content > limits.Content && content/limits.Ratio > src.n:
			return fmt.Errorf("it unpacks to more than %d times its size, like a decompression bomb", limits.Ratio)
		}
	}
}

func (s *stream) source() (io.ReadCloser, error) {
	if s.part == nil {
		return s.layer.Open()
	}
	rc, err := s.layer.OpenAt(s.part.from.In / 8)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(rc, s.part.packed), rc}, nil
}

func (s *stream) decompressor(src *source) (io.Reader, func(), error) {
	if s.part != nil {
		return s.part.reader(src), func() {}, nil
	}
	r, closer, err := decompressor(bufio.NewReaderSize(src, 256<<10))
	if z, ok := r.(*gunzip.Reader); ok && s.layer.Unpacked != nil {
		s.points.mark(z, s.layer.Size)
	}
	return r, closer, err
}

// notZeros counts the bytes that are content. Zeros compress by zstd to a thirty
// thousandth and are mostly holes in the file system: only the sum of all bytes
// bounds them.
func notZeros(b []byte) (n int64) {
	for len(b) > 0 {
		piece := b[:min(zeroPiece, len(b))]
		b = b[len(piece):]
		if piece[0] != 0 || !bytes.Equal(piece[1:], piece[:len(piece)-1]) {
			n += int64(len(piece))
		}
	}
	return n
}

// rest reads what is left of a source, which is then no layer any more, for its
// own error: only at its end it knows whether its bytes were damaged, and damaged
// ones look like a bad layer. Without such an error it gives err. Of a part nothing
// is known at its end: it has a check.
func (s *stream) rest(src *source, err error) error {
	if s.part != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for rerr := err; s.ctx.Err() == nil; _, rerr = src.Read(buf) {
		var said *sourceError
		if errors.As(rerr, &said) {
			return rerr
		}
		if errors.Is(rerr, io.EOF) {
			return err
		}
	}
	return err
}

// blame gives the reason for which a layer could not be applied: what its source
// says in the end, else err.
func (s *stream) blame(err error) error {
	close(s.drop)
	for more := true; more; { // what is on its way
		_, more = s.summed.pop()
	}
	var said *sourceError
	if errors.As(s.err, &said) {
		return s.err
	}
	return err
}

// fill reads until p is full. Unlike io.ReadFull it tells the end from a source
// that is cut short.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var got int
		got, err = r.Read(p[n:])
		n += got
	}
	return n, err
}

// source counts what is read and marks its errors.
type source struct {
	r     io.Reader
	meter *meter
	n     int64
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.meter.read(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &sourceError{err}
	}
	return n, err
}

// decompressor recognises a format by its first bytes.
func decompressor(r *bufio.Reader) (io.Reader, func(), error) {
	head, err := r.Peek(compression.Head)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch compression.Of(head) {
	case compression.Gzip:
		return gunzip.NewReader(r), func() {}, nil
	case compression.Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case compression.Xz:
		return nil, nil, errors.New("it is compressed with xz: layers are gzip, zstd or uncompressed")
	case compression.Bzip2:
		return nil, nil, errors.New("it is compressed with bzip2: layers are gzip, zstd or uncompressed")
	}
	return r, func() {}, nil
}

// Read gives the uncompressed archive.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.current) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.current)
	s.current = s.current[n:]
	return n, nil
}

// next gets the next piece.
func (s *stream) next() error {
	if s.chunk != nil {
		s.free <- s.chunk[:0]
		s.chunk = nil
	}
	start := time.Now()
	piece, ok := s.summed.pop()
	s.meter.waited += time.Since(start)
	if !ok {
		if s.err != nil {
			return s.err
		}
		return io.EOF
	}
	if piece.kept {
		s.meter.kept.Add(-1)
	}
	if piece.chunk != nil {
		s.chunk, s.current = piece.chunk, piece.chunk
		return nil
	}
	if s.meter.again == nil {
		s.meter.again = make([]byte, chunkSize)
	}
	s.current = s.meter.again[:piece.n]
	if err := s.meter.spool.take(s.current, piece.at); err != nil {
		s.current = nil
		return err
	}
	return nil
}

// spare gives the chunks to the layers that follow, once all is read.
func (s *stream) spare() {
	for {
		select {
		case c := <-s.free:
			s.meter.giveBack(c)
		default:
			return
		}
	}
}

// hashFor is the hash that a diff id asks for.
func hashFor(diffID string) hash.Hash {
	if strings.HasPrefix(diffID, sha512Prefix) {
		return sha512.New()
	}
	return sha256.New()
}

const sha512Prefix = "sha512:"

// verify compares the digest, once all is read.
func (s *stream) verify() error {
	if s.sum == nil {
		return nil
	}
	algorithm := "sha256:"
	if s.sum.Size() == sha512.Size {
		algorithm = sha512Prefix
	}
	got := algorithm + hex.EncodeToString(s.sum.Sum(nil))
	if s.layer.DiffID != "" && got != s.layer.DiffID {
		return fmt.Errorf("its uncompressed content is %s, but the image's config says %s", got, s.layer.DiffID)
	}
	return nil
}

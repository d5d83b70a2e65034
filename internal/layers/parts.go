package layers

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/bangervm/banger/internal/layers/gunzip"
)

const (
	partBytes = 16 << 20 // of content, from point to point: what fits into memory
	maxPoints = 512      // of a layer: a larger one has larger parts, a better compressed one none
)

// points collects where reading of a layer can begin.
type points struct {
	list    []gunzip.Point
	tooMany bool
}

// mark has the points of a layer of that compressed size noted.
func (p *points) mark(z *gunzip.Reader, size int64) {
	z.Mark(max(partBytes, size/(maxPoints/8)), p.add)
}

// add takes a point; beyond so many there are none, for their sums go from one to
// the next.
func (p *points) add(at gunzip.Point) {
	if p.tooMany = p.tooMany || len(p.list) == maxPoints; p.tooMany {
		p.list = nil
		return
	}
	p.list = append(p.list, at)
}

// part is what is unpacked of a layer by one goroutine.
type part struct {
	from   gunzip.Point
	size   int64 // of content
	packed int64 // bytes of the layer that it is made from
	sum    uint32
}

// unit is a layer, or a part of one.
type unit struct {
	layer Layer
	part  *part // nil for all of it
}

// units are those of a layer: one, or parts where points are known.
func (l Layer) units() []unit {
	if !l.Known || len(l.Points) == 0 || l.OpenAt == nil || l.Check == nil {
		return []unit{{layer: l}}
	}
	var list []unit
	var from gunzip.Point
	for _, p := range l.Points {
		list = append(list, unit{l, &part{from: from, size: p.Out - from.Out, packed: (p.In+7)/8 - from.In/8, sum: p.Sum}})
		from = p
	}
	return list
}

// reader gives the part's content, from where it begins in the layer.
func (p *part) reader(src io.Reader) io.Reader {
	z := gunzip.NewReader(src)
	if p.from.Out > 0 {
		z = gunzip.NewReaderAt(src, p.from)
	}
	return &exactly{r: z, left: p.size, want: p.sum}
}

// exactly gives so many bytes of that CRC-32.
type exactly struct {
	r         io.Reader
	left      int64
	sum, want uint32
}

func (e *exactly) Read(b []byte) (int, error) {
	if e.left == 0 {
		if e.sum != e.want {
			return 0, fmt.Errorf("a part of it has the sum %08x, which was %08x before", e.sum, e.want)
		}
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(int64(len(b)), e.left)])
	e.sum = crc32.Update(e.sum, crc32.IEEETable, b[:n])
	if e.left -= int64(n); err == io.EOF && e.left > 0 {
		err = fmt.Errorf("%d bytes are missing in a part of it: %w", e.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// whole reads a layer, unit by unit.
type whole struct {
	layer  Layer
	opened *opener
	at     int // the unit, of all layers'
	left   int
	stream *stream
	points []gunzip.Point
}

func (w *whole) Read(p []byte) (int, error) {
	for w.left > 0 {
		w.next()
		n, err := w.stream.Read(p)
		if err != io.EOF {
			return n, err
		}
		w.stream.spare()
		if err := w.stream.verify(); err != nil {
			return 0, err
		}
		w.points = w.stream.points.list
		w.stream = nil
		w.at++
		w.left--
	}
	return 0, io.EOF
}

// next takes the unit whose turn it is, unless it is taken.
func (w *whole) next() {
	if w.stream == nil {
		w.stream = w.opened.stream(w.at)
		close(w.stream.turn)
	}
}

// blame gives the reason for which a layer could not be applied: what its source
// says in the end, else err.
func (w *whole) blame(err error) error {
	parts := false
	if w.stream != nil {
		parts = w.stream.part != nil
		err = w.stream.blame(err)
	}
	if !parts || isFull(err) {
		return err
	}
	if bad := w.layer.Check(w.opened.ctx); bad != nil {
		return &sourceError{bad}
	}
	return err
}

package layers

import (
	"fmt"
	"io"

	"github.com/bangervm/banger/internal/layers/gunzip"
)

const (
	partBytes = 16 << 20 // of content, from point to point: what fits into memory
	maxPoints = 128      // of a layer; a larger one has larger parts
)

// points collects where reading of a layer can begin.
type points struct {
	list  []gunzip.Point
	every int64
}

func (p *points) mark(z *gunzip.Reader) {
	p.every = partBytes
	z.Mark(partBytes, p.add)
}

func (p *points) add(at gunzip.Point) {
	if n := len(p.list); n > 0 && at.Out-p.list[n-1].Out < p.every {
		return
	}
	if p.list = append(p.list, at); len(p.list) < maxPoints {
		return
	}
	for i := range maxPoints / 2 {
		p.list[i] = p.list[2*i+1]
	}
	clear(p.list[maxPoints/2:])
	p.list = p.list[:maxPoints/2]
	p.every *= 2
}

// part is what is unpacked of a layer by one goroutine.
type part struct {
	from gunzip.Point
	size int64 // of content; -1 for all that follows
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
	for i := range len(l.Points) + 1 {
		p := &part{size: -1}
		if i > 0 {
			p.from = l.Points[i-1]
		}
		if i < len(l.Points) {
			p.size = l.Points[i].Out - p.from.Out
		}
		list = append(list, unit{l, p})
	}
	return list
}

// reader gives the part's content, from where it begins in the layer.
func (p *part) reader(src io.Reader) io.Reader {
	z := gunzip.NewReader(src)
	if p.from.Out > 0 {
		z = gunzip.NewReaderAt(src, p.from)
	}
	if p.size < 0 {
		return z
	}
	return &exactly{z, p.size}
}

// exactly gives so many bytes; fewer are an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(int64(len(b)), e.left)])
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
	check  chan error // nil without a check of its own
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

// verify says whether the layer is what it should be, once all is read.
func (w *whole) verify() error {
	if w.check == nil {
		return nil
	}
	err := <-w.check
	w.check = nil // it is asked once
	if err != nil {
		return &sourceError{err}
	}
	return nil
}

// blame gives the reason for which a layer could not be applied: what its source
// says in the end, else err.
func (w *whole) blame(err error) error {
	if w.stream != nil {
		err = w.stream.blame(err)
	}
	if bad := w.verify(); bad != nil {
		return bad
	}
	return err
}

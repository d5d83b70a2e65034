package layers

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layers/gunzip"
)

// BuilderVersion is the generation of what Write makes of the same layers. It
// goes up with every change that a user of the image could see.
const BuilderVersion = 1

// Layer is one layer of an image: a tar archive, compressed or not.
type Layer struct {
	Name   string // its digest, for errors
	DiffID string // sha256:… or sha512:… of the uncompressed archive; checked unless empty
	Known  bool   // the source checks its bytes, and these were found to have this DiffID before
	Size   int64  // of what Open gives, in bytes, for progress; 0 when unknown
	// Open gives the archive: gzip (so estargz too), zstd or uncompressed,
	// recognised by its first bytes. It is called on a goroutine of its own, maybe
	// before the layers below are unpacked, and once more where the disk was full.
	Open func() (io.ReadCloser, error)

	// Unpacked, when not nil, is told once the file system is made, unless
	// it is Known: this one has its DiffID, and where reading it can begin, which may
	// be nowhere.
	Unpacked func([]gunzip.Point)
	// Points are what Unpacked was told of these bytes before. With them, and with
	// Known, parts of the layer are unpacked at once, and checked by their sums:
	// read by OpenAt, from a byte on and not checked. Check reads all for the digest:
	// it is asked when a part is not what it was.
	Points []gunzip.Point
	OpenAt func(offset int64) (io.ReadCloser, error)
	Check  func(context.Context) error
}

// Limits bound what layers may cost. A zero is the default.
type Limits struct {
	Layers  int   // how many; 1,024
	Entries int   // members of all layers together, each about 200 bytes of memory; 1,000,000
	Bytes   int64 // of all layers, uncompressed: what the disk must hold at most; 64 GiB
	Names   int64 // bytes of names, link targets and small attributes, kept in memory; 128 MiB
	Content int64 // of one layer, bytes that are no zeros, whatever their ratio; 1 GiB
	Ratio   int64 // of such bytes to compressed ones, beyond Content; 1,100, more than gzip can
}

func (l Limits) withDefaults() Limits {
	def := Limits{Layers: 1024, Entries: 1_000_000, Bytes: 64 << 30, Names: 128 << 20, Content: 1 << 30, Ratio: 1100}
	if l.Layers > 0 {
		def.Layers = l.Layers
	}
	if l.Entries > 0 {
		def.Entries = l.Entries
	}
	if l.Bytes > 0 {
		def.Bytes = l.Bytes
	}
	if l.Names > 0 {
		def.Names = l.Names
	}
	if l.Content > 0 {
		def.Content = l.Content
	}
	if l.Ratio > 0 {
		def.Ratio = l.Ratio
	}
	return def
}

// Stats say what was read, and how long each stage was at work; stages overlap.
type Stats struct {
	Members      int   // of all layers
	Removed      int   // names that a later member replaced or hid, folders counted as one
	Uncompressed int64 // bytes
	Compressed   int64
	Spooled      int64 // what was written to the disk before its turn, beside the file system

	Decompress, Hash, Merge time.Duration
}

// Write makes the ext4 file system path of the layers, bottom first. Errors are
// api.Errors: invalid (the layer and the path named), no-space, cancelled; those
// of Layer.Open and of its reader stay what they are. On any error nothing is
// left. report, when not nil, is called now and then with compressed bytes: how
// many are read, and how many there are (0 when a layer's size is unknown).
func Write(ctx context.Context, path string, uuid [16]byte, layers []Layer, limits Limits, report func(done, total int64)) (Stats, error) {
	dir := filepath.Dir(path)
	stats, err := build(ctx, path, uuid, layers, limits, dir, report)
	if isFull(err) && stats.Spooled > 0 {
		// Without what waited beside it, it may fit.
		stats, err = build(ctx, path, uuid, layers, limits, "", report)
	}
	if isFull(err) {
		err = api.Errorf(api.KindNoSpace, "cannot write file system %s: %w", path, err).WithHint("df -h %s", dir)
	}
	return stats, err
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// build is Write with a folder to spool in, "" for none.
func build(ctx context.Context, path string, uuid [16]byte, layers []Layer, limits Limits, dir string, report func(done, total int64)) (stats Stats, err error) {
	spool := &spool{dir: dir}
	defer spool.close()
	var read []*whole
	err = ext4.Build(path, uuid, func(to *ext4.Builder) (err error) {
		limits := limits.withDefaults()
		if len(layers) > limits.Layers {
			return api.Errorf(api.KindInvalid, "cannot unpack image: it has %d layers, more than %d", len(layers), limits.Layers)
		}
		m := newMeter(layers, limits, spool, report)
		t := newTree(to, limits)
		read, err = flatten(ctx, layers, m, t)
		stats = m.stats(t)
		return err
	})
	if err == nil {
		for _, w := range read {
			if w.layer.Unpacked != nil && !w.layer.Known {
				w.layer.Unpacked(w.points)
			}
		}
	}
	return stats, err
}

// flatten puts the layers' merged tree into a file system being built, and gives
// what it read.
func flatten(ctx context.Context, layers []Layer, m *meter, t *tree) (read []*whole, err error) {
	ctx, cancel := context.WithCancel(ctx)
	opened := opener{ctx: ctx, layers: layers, meter: m}
	for _, l := range layers {
		opened.first = append(opened.first, len(opened.units))
		opened.units = append(opened.units, l.units()...)
	}
	var early sync.WaitGroup
	defer func() {
		cancel()
		early.Wait()
		for _, s := range opened.streams {
			s.wait()
		}
	}()
	for i, l := range layers {
		w := opened.whole(i)
		if i == 0 {
			for range min(ahead, max(1, runtime.GOMAXPROCS(0)-1)) {
				early.Go(opened.ahead)
			}
		}
		start, waited := time.Now(), m.waited
		if err := t.apply(ctx, w); err != nil {
			return nil, unpackError(ctx, l, w.blame(err))
		}
		m.merge += time.Since(start) - (m.waited - waited)
		read = append(read, w)
	}
	return read, nil
}

// opener opens layers, or their parts, in their order, each once.
type opener struct {
	ctx    context.Context
	layers []Layer
	units  []unit
	first  []int // of each layer's units
	meter  *meter

	mu      sync.Mutex
	streams []*stream
}

// whole begins to read a layer.
func (o *opener) whole(i int) *whole {
	end := len(o.units)
	if i+1 < len(o.first) {
		end = o.first[i+1]
	}
	w := &whole{layer: o.layers[i], opened: o, at: o.first[i], left: end - o.first[i]}
	w.next()
	return w
}

// stream is the one of unit i, whose turn it is.
func (o *opener) stream(i int) *stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i == len(o.streams) {
		o.open()
	}
	return o.streams[i]
}

// open opens the next; mu is held.
func (o *opener) open() *stream {
	s := open(o.ctx, o.units[len(o.streams)], o.meter)
	o.streams = append(o.streams, s)
	return s
}

// ahead unpacks units before their turn, one after the other.
func (o *opener) ahead() {
	for o.ctx.Err() == nil {
		o.mu.Lock()
		if len(o.streams) == len(o.units) {
			o.mu.Unlock()
			return
		}
		s := o.open()
		o.mu.Unlock()
		select {
		case <-s.unpacked:
		case <-s.turn:
		}
	}
}

// apply merges one layer into the tree.
func (t *tree) apply(ctx context.Context, w *whole) error {
	t.begin()
	tr := tar.NewReader(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := t.member(h, content{ctx, tr}); err != nil {
			return err
		}
	}
	t.end()
	// What follows the archive's end belongs to the digest.
	_, err := io.Copy(io.Discard, w)
	return err
}

// content is a member's content, which may be holes of any size: they come from
// no source that would end with the context.
type content struct {
	ctx context.Context
	r   io.Reader
}

func (c content) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// unpackError names the layer. What the layer's source said stays as it is.
func unpackError(ctx context.Context, l Layer, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return api.Errorf(api.KindCancelled, "cannot unpack layer %s: %w", l.Name, cause)
	}
	var source *sourceError
	var disk syscall.Errno
	switch {
	case errors.As(err, &source):
		return fmt.Errorf("cannot read layer %s: %w", l.Name, source.err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return err
	case errors.As(err, &disk): // our own, which is not the layer's fault
		return api.Errorf(api.KindInternal, "cannot unpack layer %s: %w", l.Name, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("it is cut short")
	}
	return api.Errorf(api.KindInvalid, "cannot unpack layer %s: %w", l.Name, err)
}

// ID is the content address of what Write makes: the image's config as its bytes,
// the diff ids of its layers, bottom first, and BuilderVersion. Two references to
// the same content have the same.
func ID(config []byte, diffIDs []string) (string, error) {
	sum := sha256.Sum256(config)
	text, err := json.Marshal(struct {
		Builder int      `json:"builder"`
		Config  string   `json:"config"`
		Layers  []string `json:"layers"`
	}{BuilderVersion, hex.EncodeToString(sum[:]), diffIDs})
	if err != nil {
		return "", err
	}
	sum = sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

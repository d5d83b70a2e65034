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
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
)

// BuilderVersion is the generation of what Write makes of the same layers. It
// goes up with every change that a user of the image could see.
const BuilderVersion = 1

// Layer is one layer of an image: a tar archive, compressed or not.
type Layer struct {
	Name   string // its digest, for errors
	DiffID string // sha256:… or sha512:… of the uncompressed archive; checked unless empty
	Size   int64  // of what Open gives, in bytes, for progress; 0 when unknown
	// Open gives the archive: gzip (so estargz too), zstd or uncompressed,
	// recognised by its first bytes. It is called once, on a goroutine of its own,
	// maybe before the layers below are unpacked.
	Open func() (io.ReadCloser, error)
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

	Decompress, Hash, Merge time.Duration
}

// Write makes the ext4 file system path of the layers, bottom first. Errors are
// api.Errors: invalid (the layer and the path named), no-space, cancelled; those
// of Layer.Open and of its reader stay what they are. On any error nothing is
// left. report, when not nil, is called now and then with compressed bytes: how
// many are read, and how many there are (0 when a layer's size is unknown).
func Write(ctx context.Context, path string, uuid [16]byte, layers []Layer, limits Limits, report func(done, total int64)) (Stats, error) {
	var stats Stats
	err := ext4.Build(path, uuid, func(to *ext4.Builder) (err error) {
		stats, err = Flatten(ctx, layers, limits, to, report)
		return err
	})
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = api.Errorf(api.KindNoSpace, "cannot write file system %s: %w", path, err).WithHint("df -h %s", filepath.Dir(path))
	}
	return stats, err
}

// Flatten puts the layers' merged tree into a file system being built. See Write.
func Flatten(ctx context.Context, layers []Layer, limits Limits, to *ext4.Builder, report func(done, total int64)) (Stats, error) {
	limits = limits.withDefaults()
	if len(layers) > limits.Layers {
		return Stats{}, api.Errorf(api.KindInvalid, "cannot unpack image: it has %d layers, more than %d", len(layers), limits.Layers)
	}
	m := newMeter(layers, limits, report)
	ctx, cancel := context.WithCancel(ctx)
	var streams []*stream
	defer func() {
		cancel()
		for _, s := range streams {
			s.wait()
		}
	}()
	t := newTree(to, limits)
	for i, l := range layers {
		for len(streams) < len(layers) && len(streams) <= i+ahead {
			streams = append(streams, open(ctx, layers[len(streams)], m))
		}
		start := time.Now()
		s := streams[i]
		if err := t.apply(s); err != nil {
			return Stats{}, unpackError(ctx, l, s.blame(err))
		}
		m.merge += time.Since(start) - s.waited
	}
	return m.stats(t), nil
}

// apply merges one layer into the tree.
func (t *tree) apply(s *stream) error {
	t.begin()
	tr := tar.NewReader(s)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := t.member(h, content{s.ctx, tr}); err != nil {
			return err
		}
	}
	t.end()
	// What follows the archive's end belongs to the digest.
	if _, err := io.Copy(io.Discard, s); err != nil {
		return err
	}
	s.spare()
	return s.verify()
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

package bundle

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
)

// maxTail is how many zeros may follow the last member: tar's own two blocks,
// and what others fill the last record up with.
const maxTail = 10240

// blocking is what an archive's parts are padded to, in bytes.
const blocking = 512

// Options say what Read takes and does.
type Options struct {
	Kind  string
	Rules []Rule // all members there may be, in their order
	// Accept, if any, sees the manifest before anything is written, and may
	// refuse the bundle with an error that Read returns as it is.
	Accept func(Manifest) error
	// Report, if any, is told of bytes of the bundle read.
	Report func(done int64)
}

// Read reads a bundle to its end and puts the members in dir, which must exist,
// under their names; folders in these are made. Zeros are not stored. It
// takes exactly the members of the rules, in their order, with the sizes and
// digests of the manifest, and nothing else; on any error what it made is
// removed. Memory stays below 64 MiB, and what is written below the manifest's
// DataBytes.
//
// Errors: invalid for a bundle that is not right, no-space, cancelled, those of
// Accept, and those of r itself.
func Read(ctx context.Context, r io.Reader, dir string, opt Options) (info Info, err error) {
	in := &source{ctx: ctx, r: r, sum: sha256.New(), report: opt.Report}
	made := &maker{dir: dir}
	defer func() {
		switch {
		case err == nil:
			return
		case in.err != nil:
			err = in.err // the reader above may have said it in other words
		}
		made.remove()
	}()
	buffered := bufio.NewReaderSize(in, 256<<10)
	zr, err := decompress(buffered)
	if err != nil {
		return Info{}, err
	}
	defer zr.Close()
	m, err := readTar(newMeter(ctx, nil, 0), zr, made, opt)
	if err != nil {
		return Info{}, err
	}
	if _, err := buffered.ReadByte(); !errors.Is(err, io.EOF) {
		return Info{}, invalid(errors.New("something follows its end"))
	}
	return Info{Digest: digestOf(in.sum), SizeBytes: in.n, Manifest: m}, nil
}

// Peek reads no more of a bundle than it takes to see its manifest, which
// nobody has checked against the members yet. Errors are those of Read.
func Peek(ctx context.Context, r io.Reader, opt Options) (Manifest, error) {
	in := &source{ctx: ctx, r: r, sum: sha256.New()}
	zr, err := decompress(bufio.NewReaderSize(in, 256<<10))
	if err != nil {
		return Manifest{}, err
	}
	defer zr.Close()
	m, err := readManifest(tar.NewReader(zr), opt)
	if err != nil && in.err != nil {
		err = in.err
	}
	return m, err
}

func decompress(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(newFrame(r), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
}

func readTar(counted *meter, zr io.Reader, made *maker, opt Options) (Manifest, error) {
	r := counted.reader(zr)
	tr := tar.NewReader(r) // reads block by block, never ahead
	m, err := readManifest(tr, opt)
	if err != nil {
		return Manifest{}, err
	}
	if opt.Accept != nil {
		if err := opt.Accept(m); err != nil {
			return Manifest{}, err
		}
	}
	discard := map[string]bool{}
	for _, r := range opt.Rules {
		discard[r.Name] = r.Discard
	}
	for _, member := range m.Members {
		h, err := next(tr)
		switch {
		case err != nil:
			return Manifest{}, invalid(err)
		case h.Name != member.Name:
			return Manifest{}, invalid(fmt.Errorf("member %.80q is where its manifest says %q is", h.Name, member.Name))
		case h.Size != member.SizeBytes:
			return Manifest{}, invalid(fmt.Errorf("member %q has %d bytes, its manifest says %d", h.Name, h.Size, member.SizeBytes))
		}
		if err := made.member(tr, member, discard[member.Name]); err != nil {
			return Manifest{}, err
		}
	}
	// The library takes an archive for whole that ends without its end.
	least := (counted.done+blocking-1)/blocking*blocking + 2*blocking
	if h, err := tr.Next(); err == nil {
		return Manifest{}, invalid(fmt.Errorf("member %.80q is not in its manifest", h.Name))
	} else if !errors.Is(err, io.EOF) {
		return Manifest{}, invalid(err)
	}
	if err := tail(r); err != nil {
		return Manifest{}, err
	}
	if counted.done < least {
		return Manifest{}, invalid(errors.New("it ends too early"))
	}
	return m, nil
}

// readManifest reads the first member.
func readManifest(tr *tar.Reader, opt Options) (Manifest, error) {
	h, err := next(tr)
	switch {
	case err != nil:
		return Manifest{}, invalid(err)
	case h.Name != manifestName:
		return Manifest{}, invalid(fmt.Errorf("its first member is %.80q, not %s", h.Name, manifestName))
	case h.Size > maxManifest:
		return Manifest{}, invalid(fmt.Errorf("its manifest has %d bytes, more than %d", h.Size, maxManifest))
	}
	b, err := io.ReadAll(tr)
	if err != nil {
		return Manifest{}, invalid(err)
	}
	m, err := parseManifest(b, opt.Kind, opt.Rules)
	if err != nil {
		return Manifest{}, invalid(err)
	}
	return m, nil
}

// next gives the header of the next member, which must be a plain file with
// nothing special about it.
func next(tr *tar.Reader) (*tar.Header, error) {
	h, err := tr.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it ends too early")
	case err != nil:
		return nil, err
	case h.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("member %.80q is not a regular file", h.Name)
	case h.Format&(tar.FormatUSTAR|tar.FormatPAX) == 0:
		return nil, fmt.Errorf("member %.80q is not in a format it may have", h.Name)
	}
	for k := range h.PAXRecords {
		if k != "size" {
			return nil, fmt.Errorf("member %.80q has an attribute %.80q, and none is allowed", h.Name, k)
		}
	}
	return h, nil
}

// tail reads what follows the archive's end: zeros, if anything.
func tail(r io.Reader) error {
	buf := make([]byte, maxTail+1)
	n, err := io.ReadFull(r, buf)
	switch {
	case err == nil, !isZero(buf[:n]):
		return invalid(errors.New("something follows its last member"))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	}
	return invalid(err)
}

func invalid(err error) error {
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	return api.Errorf(api.KindInvalid, "cannot read bundle: %w", err)
}

// source is the bundle itself: counted, summed, and ended with the context. Its
// own error is kept apart from what is wrong with the content.
type source struct {
	ctx    context.Context
	r      io.Reader
	sum    hash.Hash
	n      int64
	report func(int64)
	err    error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.ctx.Err() != nil {
		s.err = cancelled("read bundle", s.ctx)
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	s.n += int64(n)
	if s.report != nil && n > 0 {
		s.report(s.n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = fmt.Errorf("cannot read bundle: %w", err)
		return n, s.err
	}
	return n, err
}

// maker writes members and can take them back.
type maker struct {
	dir  string
	made []string // in the order they were made
}

func (k *maker) remove() {
	for i := len(k.made) - 1; i >= 0; i-- {
		_ = os.Remove(k.made[i])
	}
}

// member writes one member, or reads it only.
func (k *maker) member(r io.Reader, m Member, discard bool) error {
	if discard {
		_, err := copySparse(nil, r, m)
		return err
	}
	path := filepath.Join(k.dir, filepath.FromSlash(m.Name))
	if parent := filepath.Dir(path); parent != filepath.Clean(k.dir) {
		if err := os.Mkdir(parent, 0o700); err == nil {
			k.made = append(k.made, parent)
		} else if !errors.Is(err, os.ErrExist) {
			return fileError("unpack bundle to", parent, err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fileError("unpack bundle to", path, err)
	}
	k.made = append(k.made, path)
	wrote, err := copySparse(f, r, m)
	if err == nil {
		if err = errors.Join(f.Truncate(m.SizeBytes), f.Sync()); err != nil {
			wrote = true
		}
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err, wrote = cerr, true
	}
	if err != nil && wrote {
		return fileError("unpack bundle to", path, err)
	}
	return err
}

package oci

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	units "github.com/docker/go-units"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/therootcompany/xz"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/compression"
)

// nonblock keeps an open of a fifo from waiting for its other end.
const nonblock = unix.O_NONBLOCK

// Dictionaries and windows that a decoder is to keep in memory at most.
const (
	maxZstdWindow = 128 << 20
	maxXzDict     = 128 << 20
)

// sniff finds out how a file is compressed, and goes back to its beginning.
func sniff(f *os.File) (compression.Format, error) {
	c, err := sniffReader(f)
	if err != nil {
		return 0, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return c, err
}

func sniffReader(r io.Reader) (compression.Format, error) {
	var head [compression.Head]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	return compression.Of(head[:n]), nil
}

// mediaTypeOf is that of a layer compressed so; false where layers never are.
func mediaTypeOf(c compression.Format) (string, bool) {
	switch c {
	case compression.None:
		return MediaTypeTar, true
	case compression.Gzip:
		return MediaTypeTarGzip, true
	case compression.Zstd:
		return MediaTypeTarZstd, true
	}
	return "", false
}

// uncompressed uncompresses r. closer ends it, and leaves r open. An uncompressed file
// stays one that can be sought in.
func uncompressed(c compression.Format, r io.Reader) (plain io.Reader, closer func(), err error) {
	nothing := func() {}
	switch c {
	case compression.Gzip:
		g, err := gzip.NewReader(bufio.NewReaderSize(r, 1<<20))
		return g, nothing, err
	case compression.Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nothing, err
		}
		return z, z.Close, nil
	case compression.Xz:
		x, err := xz.NewReader(bufio.NewReaderSize(r, 1<<20), maxXzDict)
		return x, nothing, err
	case compression.Bzip2:
		return bzip2.NewReader(bufio.NewReaderSize(r, 1<<20)), nothing, nil
	}
	return r, nothing, nil
}

// file is a file whose content has been read once.
type file struct {
	path   string
	digest string
	size   int64
}

func (f file) open() (io.ReadCloser, error) {
	r, err := os.Open(f.path)
	if err != nil {
		return nil, api.Errorf(api.KindBadState, "cannot read the archive: %w", err)
	}
	return newVerifier(r, f.digest, f.size, r.Close, func(m *mismatchError) error {
		return api.Errorf(api.KindBadState, "cannot read %s: it has changed since the import began: %w", f.path, m)
	}), nil
}

// spool writes what has to be kept, and leaves room on the disk.
type spool struct {
	ctx    context.Context
	dir    string
	report Report
}

const (
	// spareSpace is what is left free on the disk of the spool.
	spareSpace = 256 << 20
	// spaceEvery is how often one looks.
	spaceEvery = 32 << 20
)

// keep writes all of r to a file of the spool. total, where it is known, is for
// the report.
func (s *spool) keep(name string, r io.Reader, total int64) (file, error) {
	f := file{path: filepath.Join(s.dir, name)}
	out, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return file{}, err
	}
	f.digest, f.size, err = s.copy(out, r, total)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return f, err
}

// uncompress writes what a compressed file holds to a file of the spool.
func (s *spool) uncompress(name, from string, c compression.Format) (file, error) {
	in, err := os.Open(from)
	if err != nil {
		return file{}, err
	}
	defer func() { _ = in.Close() }()
	fi, err := in.Stat()
	if err != nil {
		return file{}, err
	}
	counted := &counter{Reader: in, spool: s, total: fi.Size()}
	r, closer, err := uncompressed(c, counted)
	if err != nil {
		return file{}, err
	}
	defer closer()
	silent := *s
	silent.report = nil
	return silent.keep(name, r, 0)
}

// measure reads a file for its digest and size.
func (s *spool) measure(path string) (file, error) {
	in, err := os.Open(path)
	if err != nil {
		return file{}, err
	}
	defer func() { _ = in.Close() }()
	fi, err := in.Stat()
	if err != nil {
		return file{}, err
	}
	f := file{path: path}
	f.digest, f.size, err = s.copy(nil, in, fi.Size())
	return f, err
}

// copy passes r on to out, which may be nil, and gives its digest and size.
func (s *spool) copy(out io.Writer, r io.Reader, total int64) (string, int64, error) {
	digester := digest.SHA256.Digester()
	buf := make([]byte, 1<<20)
	var size, looked int64
	for {
		if s.ctx.Err() != nil {
			return "", 0, s.ctx.Err()
		}
		if out != nil && size >= looked {
			looked = size + spaceEvery
			if err := s.checkSpace(size); err != nil {
				return "", 0, err
			}
		}
		n, err := r.Read(buf)
		_, _ = digester.Hash().Write(buf[:n])
		if out != nil {
			if _, err := out.Write(buf[:n]); err != nil {
				return "", 0, s.full(size, err)
			}
		}
		size += int64(n)
		if s.report != nil && n > 0 {
			s.report(size, total)
		}
		if errors.Is(err, io.EOF) {
			return digester.Digest().String(), size, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}

// checkSpace looks whether there is room for more, with size already written.
func (s *spool) checkSpace(size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return api.Errorf(api.KindInternal, "it cannot be seen how much room %s has: %w", s.dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free >= spareSpace {
		return nil
	}
	return s.full(size, nil)
}

func (s *spool) full(size int64, err error) error {
	if err != nil && !isFull(err) {
		return err
	}
	return api.Errorf(api.KindNoSpace, "the disk of %s is full after %s of it; %s must stay free", s.dir, units.BytesSize(float64(size)), units.BytesSize(spareSpace)).
		WithHint("df -h %s", s.dir)
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// counter tells how much of a file has been read.
type counter struct {
	io.Reader
	spool       *spool
	done, total int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.done += int64(n)
	if c.spool.report != nil {
		c.spool.report(c.done, c.total)
	}
	return n, err
}

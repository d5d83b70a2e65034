package seed

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/internal/compression"
)

// perEntry is what an archive may spend on one entry beside its data, in bytes.
const perEntry = 16 << 10

// errLarge is the end of an archive that goes on beyond all limits.
var errLarge = errors.New("it unpacks to more than a seed may hold")

// archive takes the members of a tar archive.
func (s *sink) archive(f io.Reader) error {
	br := bufio.NewReaderSize(f, 256<<10)
	head, err := br.Peek(compression.Head)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var r io.Reader = br
	switch compression.Of(head) {
	case compression.Gzip:
		z, err := gzip.NewReader(br)
		if err != nil {
			return err
		}
		r = z
	case compression.Zstd:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	}
	tr := tar.NewReader(&bounded{r: r, left: s.limits.bytes + int64(s.limits.entries)*perEntry})
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := s.member(h, tr); err != nil {
			return err
		}
	}
}

// bounded fails where io.LimitReader would pretend that the end came.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLarge
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// folder takes a folder of the host. Links are never followed.
func (s *sink) folder(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	first := map[[2]uint64]string{} // hard links
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := root.Lstat(path)
		if err != nil {
			return err
		}
		return s.file(root, path, fi, first)
	})
}

func (s *sink) file(root *os.Root, path string, fi fs.FileInfo, first map[[2]uint64]string) error {
	target := ""
	switch {
	case fi.Mode()&fs.ModeSocket != 0:
		return nil // lives with its process only
	case fi.Mode()&fs.ModeSymlink != 0:
		var err error
		if target, err = root.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, target)
	if err != nil {
		return err
	}
	h.Name = filepath.ToSlash(path)
	if !fi.Mode().IsRegular() {
		return s.member(h, nil)
	}
	var st unix.Stat_t
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != h.Size {
		return fmt.Errorf("%q changed while it was read", path)
	}
	id := [2]uint64{uint64(st.Dev), st.Ino}
	if name, ok := first[id]; ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, name, 0
		return s.member(h, nil)
	}
	if st.Nlink > 1 {
		first[id] = h.Name
	}
	return s.member(h, f)
}

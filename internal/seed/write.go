package seed

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
)

// Info is what a seed came to.
type Info struct {
	Entries int
	Bytes   int64 // of its files
	// Hoisted says that the source had the home one level too deep, in a folder
	// root, and that its content was taken.
	Hoisted bool
}

// limits bound a seed.
type limits struct {
	entries int
	bytes   int64
}

// standard is what a home of the default size takes with room to spare.
func standard() limits { return limits{entries: 200_000, bytes: 4 << 30} }

// Write makes the seed dst, which must not exist, of source: a folder, or a tar
// archive, plain or compressed with gzip or zstd. Owners become root, sockets are
// left out, devices refused. A home nested one level too deep, in a top folder
// named root, is hoisted; what would then have two owners of one name is refused.
// report, which may be nil, is told the bytes of files so far. On an error
// nothing is left at dst. Bad sources are errors of kind invalid.
func Write(ctx context.Context, dst, source string, report func(bytes int64)) (Info, error) {
	return write(ctx, dst, source, report, standard())
}

func write(ctx context.Context, dst, source string, report func(int64), lim limits) (Info, error) {
	fail := func(err error) error {
		kind := api.KindInvalid
		switch {
		case ctx.Err() != nil:
			return api.Errorf(api.KindCancelled, "cannot make work seed of %s: %w", source, context.Cause(ctx))
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
			kind = api.KindNoSpace
		case errors.Is(err, os.ErrPermission):
			kind = api.KindDenied
		case errors.Is(err, os.ErrNotExist):
			kind = api.KindNotFound
		case errors.Is(err, syscall.EIO): // a disk is to blame, not the source
			kind = api.KindInternal
		}
		return api.Errorf(kind, "cannot make work seed of %s: %w", source, err)
	}
	f, err := os.OpenFile(source, os.O_RDONLY|unix.O_NONBLOCK, 0) // no pipe holds us up
	if err != nil {
		return Info{}, fail(err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return Info{}, fail(err)
	}
	s := &sink{ctx: ctx, limits: lim, report: report, tops: map[string]bool{}, mode: 0o700, time: time.Unix(0, 0)}
	var fill func() error
	switch {
	case fi.IsDir():
		fill = func() error { return s.folder(source) }
	case fi.Mode().IsRegular():
		fill = func() error { return s.archive(f) }
	default:
		return Info{}, fail(errors.New("it is neither a folder nor an archive"))
	}
	err = ext4.Write(dst, ext4.UUID("work seed"), func(tw *tar.Writer) error {
		s.tw = tw
		if err := fill(); err != nil {
			return err
		}
		if s.info.Entries == 0 {
			return errors.New("it is empty")
		}
		return tw.WriteHeader(ext4.Member(&tar.Header{Typeflag: tar.TypeDir, Mode: s.mode, ModTime: s.time}, "./", ""))
	})
	if err != nil {
		return Info{}, fail(err)
	}
	return s.info, nil
}

// sink takes members of any source, checks them and hands them on.
type sink struct {
	ctx    context.Context
	limits limits
	report func(int64)
	tw     *tar.Writer
	info   Info
	// tops are the names in the home itself; true for those hoisted out of root.
	tops map[string]bool
	mode int64 // of the home
	time time.Time
}

// place gives a member's path in the home: "" for the home itself.
func (s *sink) place(name string, dir bool) (string, error) {
	path, err := ext4.MemberPath(name)
	if err != nil || path == "" {
		return "", err
	}
	top, rest, deep := cutPath(path)
	hoisted := top == nested && (deep || dir)
	if hoisted {
		s.info.Hoisted = true
		if !deep {
			return "", nil
		}
		path = rest
		top, _, _ = cutPath(path)
	}
	if from, known := s.tops[top]; known && from != hoisted {
		return "", fmt.Errorf("it has %q both at its top and in its folder %s: which one is the home's?", top, nested)
	}
	s.tops[top] = hoisted
	return path, nil
}

// nested is the folder that a home lies in when one level too much was archived.
const nested = "root"

func cutPath(path string) (top, rest string, deep bool) {
	for i := range len(path) {
		if path[i] == '/' {
			return path[:i], path[i+1:], true
		}
	}
	return path, "", false
}

// member takes one member, whose data is read from r.
func (s *sink) member(h *tar.Header, r io.Reader) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	dir := h.Typeflag == tar.TypeDir
	path, err := s.place(h.Name, dir)
	if err != nil {
		return err
	}
	if path == "" {
		if !dir {
			return fmt.Errorf("member %.80q would replace the home itself", h.Name)
		}
		if outer, _ := ext4.MemberPath(h.Name); outer == nested || !s.info.Hoisted {
			s.mode, s.time = h.Mode&0o755|0o700, h.ModTime // ssh wants no other to write here
		}
		return nil
	}
	target := ""
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, tar.TypeDir, tar.TypeSymlink, tar.TypeFifo:
	case tar.TypeLink:
		if target, err = s.place(h.Linkname, false); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock:
		return fmt.Errorf("member %.80q is a device, which a home does not hold", h.Name)
	default:
		return fmt.Errorf("member %.80q is of kind %q, which a home does not hold", h.Name, h.Typeflag)
	}
	if s.info.Entries++; s.info.Entries > s.limits.entries {
		return fmt.Errorf("it has more than %d entries", s.limits.entries)
	}
	m := ext4.Member(h, path, target)
	m.Uid, m.Gid = 0, 0
	if m.Size > s.limits.bytes-s.info.Bytes {
		return fmt.Errorf("its files are larger than %d bytes", s.limits.bytes)
	}
	if err := s.tw.WriteHeader(m); err != nil {
		return err
	}
	return s.data(m, r)
}

// data copies a member's data, the end of which is an error when it comes early.
func (s *sink) data(m *tar.Header, r io.Reader) error {
	for left := m.Size; left > 0; {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(s.tw, r, min(left, 1<<20))
		s.info.Bytes += n
		left -= n
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%.80q ends %d bytes early", m.Name, left)
		}
		if err != nil {
			return err
		}
		if s.report != nil {
			s.report(s.info.Bytes)
		}
	}
	return nil
}

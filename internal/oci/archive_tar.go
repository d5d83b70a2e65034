package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// What an archive of images may have at most.
const (
	maxMembers = 100_000
	maxLinks   = 8
)

// tarMembers are the members of an uncompressed tar, read in place.
type tarMembers struct {
	path    string
	members map[string]member
}

// member is where a file is in the tar, or what a link leads to.
type member struct {
	offset, size int64
	link         string
}

// indexTar finds the members of a tar. Their content is skipped, not read.
func indexTar(ctx context.Context, file string) (*tarMembers, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t := &tarMembers{path: file, members: map[string]member{}}
	t.members, err = readMembers(ctx, f, fi.Size())
	return t, err
}

func readMembers(ctx context.Context, r io.ReadSeeker, size int64) (map[string]member, error) {
	members := map[string]member{}
	tr := tar.NewReader(r) // it seeks where it can, and reads no byte ahead
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return members, nil
		}
		if err != nil {
			return nil, fmt.Errorf("it cannot be read: %w", err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if n >= maxMembers {
			return nil, fmt.Errorf("it has more than %d members, which no archive of images has", maxMembers)
		}
		name := memberName(h.Name)
		var m member
		switch h.Typeflag {
		case tar.TypeReg:
			if m.offset, err = r.Seek(0, io.SeekCurrent); err != nil {
				return nil, err
			}
			if m.size = h.Size; m.size > size-m.offset {
				return nil, fmt.Errorf("it is cut short: %s should have %d bytes", clip(printable(name)), m.size)
			}
			if isSparse(h) {
				return nil, fmt.Errorf("its member %s is sparse, which no archive of images has", clip(printable(name)))
			}
		case tar.TypeSymlink:
			m.link = memberName(path.Join(path.Dir(name), h.Linkname))
		case tar.TypeLink:
			m.link = memberName(h.Linkname)
		default:
			continue // folders, and what has no business there
		}
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("it has the member %s twice", clip(printable(name)))
		}
		members[name] = m
	}
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// open gives a member, following links within the archive.
func (t *tarMembers) open(name string) (io.ReadCloser, int64, error) {
	for range maxLinks {
		m, ok := t.members[name]
		if !ok {
			return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		if m.link != "" {
			name = m.link
			continue
		}
		f, err := os.Open(t.path)
		if err != nil {
			return nil, 0, err
		}
		return &section{io.NewSectionReader(f, m.offset, m.size), f}, m.size, nil
	}
	return nil, 0, fmt.Errorf("its member %s is a link that leads nowhere", clip(printable(name)))
}

// section is a part of a file.
type section struct {
	*io.SectionReader
	io.Closer
}

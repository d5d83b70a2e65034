package ext4

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// errStopped ends the conversion when the members' source failed; the source's
// own error is the one reported.
var errStopped = errors.New("stopped")

// Write is Build for those who have an archive: the members that fill writes,
// each path once but for folders. A member's parent folders need not come before
// it; such a folder is like its parent until its own member comes.
//
// An error of fill is returned as it is. On any error the file is removed.
// fill runs on the caller's goroutine.
func Write(path string, uuid [16]byte, fill func(*tar.Writer) error) error {
	return Build(path, uuid, func(b *Builder) error { return b.convert(fill) })
}

// convert runs fill and the conversion side by side, so that the two overlap.
func (b *Builder) convert(fill func(*tar.Writer) error) error {
	pr, pw := io.Pipe()
	converted := make(chan error, 1)
	go func() {
		err := b.archive(pr)
		// A writer still blocked must learn of it. After the end of the archive
		// the writer may still send padding, which is nobody's.
		if err != nil {
			_ = pr.CloseWithError(err)
		} else {
			_, _ = io.Copy(io.Discard, pr)
		}
		converted <- err
	}()

	bw := bufio.NewWriterSize(pw, 256<<10)
	tw := tar.NewWriter(bw)
	fillErr := fill(tw)
	if fillErr == nil {
		fillErr = tw.Close()
	}
	if fillErr == nil {
		fillErr = bw.Flush()
	}
	if fillErr != nil {
		_ = pw.CloseWithError(errStopped)
	} else {
		_ = pw.Close()
	}
	convErr := <-converted
	switch {
	case convErr != nil && !errors.Is(convErr, errStopped):
		return fmt.Errorf("cannot write file system: %w", convErr)
	case fillErr != nil:
		return fillErr
	}
	return nil
}

// archive puts all members into the tree.
func (b *Builder) archive(r io.Reader) error {
	tr := tar.NewReader(bufio.NewReaderSize(r, 256<<10))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = b.member(h, tr)
		}
		if err != nil {
			return err
		}
	}
}

func (b *Builder) member(h *tar.Header, r io.Reader) error {
	name, err := MemberPath(h.Name)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return b.link(h, name)
	}
	a, err := MemberAttr(h)
	if err != nil {
		return fmt.Errorf("member %.80q: %w", name, err)
	}
	dir, err := b.folder(path.Dir(name))
	if err != nil {
		return fmt.Errorf("member %.80q: %w", name, err)
	}
	id := Root
	switch {
	case name == "":
		err = b.Set(Root, a)
	case a.Mode&unix.S_IFMT == unix.S_IFREG:
		id, err = b.File(a, h.Size, r)
	default:
		if old, ok := b.Lookup(dir, path.Base(name)); ok && b.Type(old.Node) == unix.S_IFDIR && a.Mode&unix.S_IFMT == unix.S_IFDIR {
			id, err = old.Node, b.Set(old.Node, a)
		} else {
			id, err = b.Make(a)
		}
	}
	if err == nil && name != "" {
		err = b.Put(dir, path.Base(name), Entry{Node: id})
	}
	if err != nil {
		return fmt.Errorf("member %.80q: %w", name, err)
	}
	return nil
}

func (b *Builder) link(h *tar.Header, name string) error {
	target, err := MemberPath(h.Linkname)
	if err != nil {
		return err
	}
	from, err := b.folder(path.Dir(target))
	if err != nil {
		return fmt.Errorf("member %.80q: %w", name, err)
	}
	e, ok := b.Lookup(from, path.Base(target))
	if !ok || b.Type(e.Node) == unix.S_IFDIR {
		return fmt.Errorf("member %.80q is a link to %.80q, which is no file before it", name, target)
	}
	dir, err := b.folder(path.Dir(name))
	if err == nil {
		err = b.Put(dir, path.Base(name), e)
	}
	if err != nil {
		return fmt.Errorf("member %.80q: %w", name, err)
	}
	return nil
}

// folder finds a folder and makes what is missing of it.
func (b *Builder) folder(dir string) (Node, error) {
	at := Root
	if dir == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(dir, "/") {
		e, ok := b.Lookup(at, part)
		switch {
		case !ok:
			n := b.at(at)
			id, made := b.add()
			*made = node{mode: n.mode, uid: n.uid, gid: n.gid, time: n.time, links: 1, more: &more{children: map[string]Entry{}}}
			if err := b.Put(at, part, Entry{Node: id}); err != nil {
				return 0, err
			}
			at = id
		case b.Type(e.Node) != unix.S_IFDIR:
			return 0, fmt.Errorf("%.80q is no folder", part)
		default:
			at = e.Node
		}
	}
	return at, nil
}

// UUID makes a file system's name out of a text.
func UUID(text string) [16]byte {
	sum := sha256.Sum256([]byte(text))
	u := [16]byte(sum[:16])
	u[6] = u[6]&0x0f | 0x80 // version 8: made by our own rule
	u[8] = u[8]&0x3f | 0x80
	return u
}

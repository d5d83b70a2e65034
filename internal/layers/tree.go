package layers

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/internal/ext4"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	// auxiliary begins names that a layer of AUFS has in its root for itself:
	// folders of files that others link to.
	auxiliary = ".wh..wh."

	maxAux = 16 // such names; AUFS has three

	maxPath  = 4096
	maxLinks = 40   // symbolic links on the way to a member, as in Linux
	maxDepth = 2048 // folders within each other: what a path can name

	// workPerEntry bounds the steps on the ways to all members, so that layers of
	// paths and links through each other cost no hours.
	workPerEntry = 256
	bytesPerStep = 16 // of a path that a link makes longer
)

var (
	errNoFolder = errors.New("it lies in what is no folder")
	errWork     = errors.New("its paths and links are too tangled")
)

// tree applies layers to a file system being built. The tag of each entry is the
// layer that last named it or something in it: what has another tag came from
// below.
type tree struct {
	to     *ext4.Builder
	limits Limits

	layer   uint32
	cleared map[ext4.Node]bool // folders in which nothing from below is left
	aux     []string           // auxiliary names in the root
	path    []ext4.Node        // walk's, from the root on

	members, removed, work int
	names, content         int64 // bytes
}

func newTree(to *ext4.Builder, limits Limits) *tree { return &tree{to: to, limits: limits} }

func (t *tree) begin() {
	t.layer++
	t.cleared = map[ext4.Node]bool{}
}

func (t *tree) end() {
	for _, name := range t.aux {
		t.to.Remove(ext4.Root, name)
	}
	t.aux = nil
}

// member applies one member of a layer.
func (t *tree) member(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if t.members++; t.members > t.limits.Entries {
		return fmt.Errorf("the image has more than %d members", t.limits.Entries)
	}
	if err := t.place(h, r); err != nil {
		var source *sourceError
		if errors.As(err, &source) {
			return err
		}
		return fmt.Errorf("member %.200q: %w", h.Name, err)
	}
	return nil
}

// place is member without the name in its errors.
func (t *tree) place(h *tar.Header, r io.Reader) error {
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	small := 0
	if len(h.PAXRecords) > 0 {
		small = 128
	}
	if err := t.name(len(path.Base(name)) + len(h.Linkname) + small); err != nil {
		return err
	}
	folder, base := path.Split(name)
	if strings.HasPrefix(base, whiteout) && (folder != "" || base == opaque || !strings.HasPrefix(base, auxiliary)) {
		return t.hide(folder, base)
	}
	if first, _, _ := strings.Cut(name, "/"); strings.HasPrefix(first, auxiliary) && !slices.Contains(t.aux, first) {
		if t.aux = append(t.aux, first); len(t.aux) > maxAux {
			return errors.New("its layer has too many names of AUFS")
		}
	}
	if h.Typeflag == tar.TypeLink {
		return t.link(h, folder, base)
	}
	a, err := ext4.MemberAttr(h)
	if err != nil {
		return err
	}
	for k := range a.Xattrs {
		// They would steer the guest's own overlay.
		if strings.HasPrefix(k, "trusted.overlay.") {
			delete(a.Xattrs, k)
		}
	}
	isFolder := h.Typeflag == tar.TypeDir
	if name == "" {
		if !isFolder {
			return errors.New("the root is no folder")
		}
		return t.to.Set(ext4.Root, a)
	}
	dir, _, err := t.walk(folder, h.ModTime, true)
	if err != nil {
		return err
	}
	old, exists := t.to.Lookup(dir, base)
	if exists && isFolder && t.to.Type(old.Node) == unix.S_IFDIR {
		if err := t.to.Set(old.Node, a); err != nil {
			return err
		}
		return t.to.Put(dir, base, ext4.Entry{Node: old.Node, Tag: t.layer})
	}
	if exists {
		t.remove(dir, base)
	}
	var id ext4.Node
	if a.Mode&unix.S_IFMT == unix.S_IFREG {
		// Sparse files are larger than what the layer has of them.
		if t.content += min(h.Size, t.limits.Bytes+1); t.content > t.limits.Bytes {
			return fmt.Errorf("it has %d bytes, and the image's files more than %d", h.Size, t.limits.Bytes)
		}
		id, err = t.to.File(a, h.Size, r)
	} else {
		id, err = t.to.Make(a)
	}
	if err != nil {
		return err
	}
	if isFolder {
		t.cleared[id] = true
	}
	return t.to.Put(dir, base, ext4.Entry{Node: id, Tag: t.layer})
}

// name counts what is kept in memory of a member.
func (t *tree) name(bytes int) error {
	if t.names += int64(bytes); t.names > t.limits.Names {
		return fmt.Errorf("names and links of the image are longer than %d bytes together", t.limits.Names)
	}
	return nil
}

// link gives a file another name. Its target is what is there now, from this
// layer or below, and stays when its own name goes.
func (t *tree) link(h *tar.Header, folder, base string) error {
	if base == "" {
		return errors.New("the root is no folder")
	}
	name, err := clean(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %.200q: %w", h.Linkname, err)
	}
	dir, _, err := t.walk(folder, h.ModTime, true)
	if err != nil {
		return err
	}
	target, err := t.target(name)
	if err != nil {
		return err
	}
	if old, ok := t.to.Lookup(dir, base); ok && old.Node != target {
		// What goes may be a folder with the target in it.
		t.remove(dir, base)
		if target, err = t.target(name); err != nil {
			return err
		}
	}
	return t.to.Put(dir, base, ext4.Entry{Node: target, Tag: t.layer})
}

func (t *tree) target(name string) (ext4.Node, error) {
	folder, base := path.Split(name)
	dir, ok, err := t.walk(folder, time.Time{}, false)
	if err != nil {
		return 0, err
	}
	var e ext4.Entry
	if ok {
		e, ok = t.to.Lookup(dir, base)
	}
	switch {
	case !ok && base != "":
		return 0, fmt.Errorf("hard link to %.200q, which is not there", name)
	case base == "" || t.to.Type(e.Node) == unix.S_IFDIR:
		return 0, fmt.Errorf("hard link to %.200q, which is a folder", name)
	}
	return e.Node, nil
}

// hide applies a whiteout: what it names goes as far as it came from below. What
// this layer has there stays, whichever came first.
func (t *tree) hide(folder, base string) error {
	name := strings.TrimPrefix(base, whiteout)
	if name == "" || name == "." || name == ".." {
		return errors.New("whiteout of nothing")
	}
	dir, ok, err := t.walk(folder, time.Time{}, false)
	if err != nil || !ok {
		return err
	}
	if base == opaque {
		t.clear(dir)
		return nil
	}
	e, ok := t.to.Lookup(dir, name)
	switch {
	case !ok:
	case e.Tag != t.layer:
		t.remove(dir, name)
	case t.to.Type(e.Node) == unix.S_IFDIR:
		t.clear(e.Node)
	}
	return nil
}

// clear removes from a folder what came from below.
func (t *tree) clear(dir ext4.Node) {
	for todo := []ext4.Node{dir}; len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if t.cleared[dir] {
			continue
		}
		t.cleared[dir] = true
		for name, e := range t.to.Names(dir) {
			if e.Tag != t.layer {
				t.remove(dir, name)
			} else if t.to.Type(e.Node) == unix.S_IFDIR {
				todo = append(todo, e.Node)
			}
		}
	}
}

func (t *tree) remove(dir ext4.Node, name string) {
	t.to.Remove(dir, name)
	t.removed++
}

// walk finds a folder, following symbolic links as a process would for which our
// root is all there is. Folders on the way are this layer's from now on if it
// makes the way: then what is missing becomes a folder of root's. Otherwise
// something missing is no error.
func (t *tree) walk(folder string, now time.Time, make bool) (ext4.Node, bool, error) {
	t.path = append(t.path[:0], ext4.Root)
	links := 0
	for todo := folder; todo != ""; {
		var part string
		part, todo, _ = strings.Cut(todo, "/")
		if t.work++; t.work/workPerEntry > t.limits.Entries {
			return 0, false, errWork
		}
		switch part {
		case "", ".":
			continue
		case "..":
			t.path = t.path[:max(len(t.path)-1, 1)]
			continue
		}
		dir := t.path[len(t.path)-1]
		e, ok := t.to.Lookup(dir, part)
		if !ok && !make {
			return 0, false, nil
		}
		if !ok {
			id, err := t.folder(dir, part, now)
			if err != nil {
				return 0, false, err
			}
			e = ext4.Entry{Node: id, Tag: t.layer}
		}
		switch t.to.Type(e.Node) {
		case unix.S_IFDIR:
			if make && e.Tag != t.layer {
				if err := t.to.Put(dir, part, ext4.Entry{Node: e.Node, Tag: t.layer}); err != nil {
					return 0, false, err
				}
			}
			if t.path = append(t.path, e.Node); len(t.path) > maxDepth {
				return 0, false, fmt.Errorf("it lies more than %d folders deep", maxDepth)
			}
		case unix.S_IFLNK:
			if links++; links > maxLinks {
				return 0, false, errors.New("symbolic links on the way to it go round in circles")
			}
			target := t.to.Target(e.Node)
			if strings.HasPrefix(target, "/") {
				t.path = t.path[:1]
			}
			todo = target + "/" + todo
			t.work += len(todo) / bytesPerStep
		default:
			if make {
				return 0, false, errNoFolder
			}
			return 0, false, nil
		}
	}
	return t.path[len(t.path)-1], true, nil
}

// folder makes one that no member named so far.
func (t *tree) folder(dir ext4.Node, name string, now time.Time) (ext4.Node, error) {
	if t.members++; t.members > t.limits.Entries {
		return 0, fmt.Errorf("the image has more than %d members and folders", t.limits.Entries)
	}
	if err := t.name(len(name)); err != nil {
		return 0, err
	}
	id, err := t.to.Make(ext4.Attr{Mode: unix.S_IFDIR | 0o755, Time: now})
	if err != nil {
		return 0, err
	}
	t.cleared[id] = true
	return id, t.to.Put(dir, name, ext4.Entry{Node: id, Tag: t.layer})
}

// clean is a member's path within the root, "" for the root itself: like a
// process there, it cannot climb out.
func clean(name string) (string, error) {
	if len(name) > maxPath {
		return "", fmt.Errorf("path is longer than %d bytes", maxPath)
	}
	if strings.ContainsRune(name, 0) {
		return "", errors.New("path has a zero byte")
	}
	return path.Clean("/" + name)[1:], nil
}

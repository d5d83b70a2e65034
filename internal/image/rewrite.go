package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"sort"
	"time"

	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/ext4"
)

// maxEntries bounds the members of an archive: each costs memory until the end.
const maxEntries = 5_000_000

// rewriter passes a tree on, member by member, with the changes an image needs:
// files replaced or added, leftovers dropped. It holds names only.
type rewriter struct {
	replace map[string]string // path → text
	drop    map[string]bool
	now     time.Time // of the files we add

	// types of the members passed on. A file system has one thing at a path,
	// and nothing but folders above it.
	types map[string]byte

	packages map[string]string // versions, out of dpkg's status
	bytes    int64             // of file content passed on
	progress func(bytes int64)
}

func newRewriter(files []File, drop []string, now time.Time) *rewriter {
	w := &rewriter{replace: map[string]string{}, drop: map[string]bool{}, now: now, types: map[string]byte{}}
	for _, f := range files {
		w.replace[f.Path] = f.Text
	}
	for _, d := range drop {
		w.drop[d] = true
	}
	return w
}

// copy reads the whole archive and writes the whole tree.
func (w *rewriter) copy(tr *tar.Reader, tw *tar.Writer) error {
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("cannot read archive: %w", err)
		}
		if n >= maxEntries {
			return fmt.Errorf("cannot read archive: more than %d members", maxEntries)
		}
		if err := w.member(h, tr, tw); err != nil {
			return fmt.Errorf("cannot read archive: %w", err)
		}
	}
	if len(w.types) == 0 {
		return errors.New("cannot read archive: it is empty")
	}
	return w.rest(tw)
}

func (w *rewriter) member(h *tar.Header, r io.Reader, tw *tar.Writer) error {
	name, err := ext4.MemberPath(h.Name)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if _, ours := w.replace[name]; w.drop[name] || ours {
		return nil // what is ours comes at the end
	}
	target := ""
	switch h.Typeflag {
	case tar.TypeLink:
		if target, err = ext4.MemberPath(h.Linkname); err != nil {
			return err
		}
		if t, ok := w.types[target]; !ok || t == tar.TypeDir {
			return fmt.Errorf("member %.80q is a link to %.80q, which is no file before it", name, target)
		}
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeGNUSparse, tar.TypeCont:
	default:
		return fmt.Errorf("member %.80q is of unknown type %q", name, h.Typeflag)
	}
	if h.Typeflag == tar.TypeSymlink && (h.Linkname == "" || len(h.Linkname) > 4095) {
		return fmt.Errorf("member %.80q is a link to nowhere", name)
	}
	if err := w.place(name, h.Typeflag); err != nil {
		return err
	}
	m := ext4.Member(h, name, target)
	if name == "" {
		m.Name = "./"
	}
	if err := tw.WriteHeader(m); err != nil {
		return err
	}
	if m.Typeflag != tar.TypeReg {
		return nil
	}
	if name == "var/lib/dpkg/status" {
		return w.status(r, tw)
	}
	n, err := io.Copy(tw, r)
	w.count(n)
	return err
}

// place notes that something of the type is at name.
func (w *rewriter) place(name string, typ byte) error {
	if name == "" {
		if typ != tar.TypeDir {
			return errors.New("the root is no folder")
		}
		w.types[""] = typ
		return nil
	}
	if old, ok := w.types[name]; ok && (old != tar.TypeDir || typ != tar.TypeDir) {
		return fmt.Errorf("member %.80q is there twice", name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if t, ok := w.types[dir]; ok {
			if t != tar.TypeDir {
				return fmt.Errorf("member %.80q lies in %.80q, which is no folder", name, dir)
			}
			break
		}
		w.types[dir] = tar.TypeDir
	}
	w.types[name] = typ
	return nil
}

// status passes dpkg's status file on and reads the packages' versions from it.
func (w *rewriter) status(r io.Reader, tw *tar.Writer) error {
	tee := io.TeeReader(r, tw)
	packages, err := debian.ReadStatus(tee)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, tee)
	w.packages = packages
	return err
}

// rest writes our own files, those whose folder exists or can exist.
func (w *rewriter) rest(tw *tar.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(w.replace)) {
		text := w.replace[name]
		if err := w.place(name, tar.TypeReg); err != nil {
			return err
		}
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text)),
			ModTime: w.now, AccessTime: w.now, ChangeTime: w.now, Format: tar.FormatPAX,
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, text); err != nil {
			return err
		}
		w.count(int64(len(text)))
	}
	return nil
}

func (w *rewriter) count(n int64) {
	w.bytes += n
	if w.progress != nil {
		w.progress(w.bytes)
	}
}

// sortedPackages lists name=version.
func sortedPackages(m map[string]string) []string {
	list := make([]string, 0, len(m))
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	return list
}

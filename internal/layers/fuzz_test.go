package layers

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layers/layerstest"
)

// model is the tree as a map of paths, each member applied the slow way. Values
// are as in listing, but names of one file share a pointer.
type model struct {
	files  map[string]*thing
	layer  int
	circle bool // a way went round in circles: always an error
}

type thing struct {
	kind, text string
}

// owner says which layer last named a path.
type owner map[string]int

// place resolves the links on the way to a path's parent; ok is false when the
// way ends in something that is no folder. Missing folders are made when make is
// set.
func (s *model) place(name string, owners owner, make bool) (string, bool) {
	at, links := "/", 0
	todo := strings.Split(path.Dir(path.Clean("/"+name)), "/")
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		switch f := s.files[next]; {
		case f == nil && !make:
			return "", false
		case f == nil:
			s.files[next] = &thing{kind: "/"}
			owners[next] = s.layer
			at = next
		case f.kind == "/":
			if make {
				owners[next] = s.layer
			}
			at = next
		case f.kind == "->":
			if links++; links > maxLinks {
				s.circle = true
				return "", false
			}
			if strings.HasPrefix(f.text, "/") {
				at = "/"
			}
			todo = append(strings.Split(f.text, "/"), todo...)
		default:
			return "", false
		}
	}
	return path.Join(at, path.Base(name)), true
}

func (s *model) remove(name string, owners owner, keep int) {
	for p := range s.files {
		if (p == name || strings.HasPrefix(p, name+"/")) && (keep == 0 || owners[p] != keep) {
			delete(s.files, p)
			delete(owners, p)
		}
	}
}

// member applies one, and is false where it must be refused.
func (s *model) member(f m, owners owner) bool {
	name := path.Clean("/" + f.Name)
	if name == "/" {
		return f.Typeflag == tar.TypeDir
	}
	base := path.Base(name)
	if base == opaque || strings.HasPrefix(base, whiteout) {
		dir, ok := s.place(name, owners, false)
		if !ok {
			return !s.circle
		}
		dir = path.Dir(dir)
		if base == opaque {
			for p := range s.files {
				if strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") && owners[p] != s.layer {
					delete(s.files, p)
				}
			}
		} else {
			s.remove(path.Join(dir, strings.TrimPrefix(base, whiteout)), owners, s.layer)
		}
		return true
	}
	at, ok := s.place(name, owners, true)
	if !ok {
		return false
	}
	var made *thing
	switch f.Typeflag {
	case tar.TypeDir:
		if old := s.files[at]; old != nil && old.kind == "/" {
			owners[at] = s.layer
			return true
		}
		made = &thing{kind: "/"}
	case tar.TypeSymlink:
		made = &thing{kind: "->", text: f.Linkname}
	case tar.TypeReg:
		made = &thing{kind: "=", text: f.Data}
	case tar.TypeLink:
		find := func() *thing {
			to, ok := s.place(path.Clean("/"+f.Linkname), owners, false)
			if !ok || s.files[to] == nil || s.files[to].kind == "/" {
				return nil
			}
			return s.files[to]
		}
		if made = find(); made == nil {
			return false
		}
		if s.files[at] == made {
			owners[at] = s.layer
			return true
		}
		s.remove(at, owners, 0)
		if made = find(); made == nil {
			return false
		}
	}
	s.remove(at, owners, 0)
	s.files[at] = made
	owners[at] = s.layer
	return true
}

func (s *model) listing() map[string]string {
	list, first := map[string]string{}, map[*thing]string{}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		f := s.files[name]
		switch was, again := first[f]; {
		case again:
			list[name] = "as " + was
			continue
		case f.kind == "/":
			list[name] = "/"
		default:
			list[name] = f.kind + " " + f.text
		}
		first[f] = name
	}
	return list
}

// members reads a stack of layers out of bytes: three a member, few names so that
// they meet.
func members(b []byte) [][]m {
	names := []string{"a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/b/c", "b/a/a", "c/../b", "/a", "../c"}
	targets := []string{"a", "b", "/", "..", "a/b", "/b/a", "../../c", "c"}
	stack := [][]m{nil}
	for ; len(b) >= 3 && len(stack) < 6; b = b[3:] {
		top := len(stack) - 1
		name := names[int(b[1])%len(names)]
		dir, base := path.Split(name)
		data := fmt.Sprint(top, len(stack[top]))
		var f m
		switch b[0] % 8 {
		case 0, 1:
			f = file(name, data)
		case 2:
			f = folder(name)
		case 3:
			f = symlink(name, targets[int(b[2])%len(targets)])
		case 4:
			f = link(name, names[int(b[2])%len(names)])
		case 5:
			f = file(dir+whiteout+base, "")
		case 6:
			f = file(name+"/"+opaque, "")
		case 7:
			stack = append(stack, nil)
			continue
		}
		stack[top] = append(stack[top], f)
	}
	return stack
}

// FuzzMerge holds the merging of layers against the model.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x07\x00\x00\x05\x00\x00"))
	f.Add([]byte("\x00\x03\x00\x03\x02\x00\x07\x00\x00\x00\x07\x00\x04\x00\x03\x06\x00\x00"))
	f.Add([]byte("\x02\x00\x00\x00\x03\x00\x07\x00\x00\x03\x00\x01\x00\x04\x00\x05\x03\x00\x07\x00\x00\x04\x01\x04\x05\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		stacked := members(b)
		want := model{files: map[string]*thing{}}
		owners, good := owner{}, true
		for _, l := range stacked {
			want.layer++
			for _, f := range l {
				good = good && want.member(f, owners)
			}
		}
		path, err := write(t, stack(t, stacked...), Limits{})
		if (err == nil) != good {
			t.Fatalf("the model takes it: %v; we say %v", good, err)
		}
		if err != nil {
			if api.KindOf(err) != api.KindInvalid {
				t.Errorf("%s: %v", api.KindOf(err), err)
			}
			return
		}
		if d := cmp.Diff(want.listing(), listing(read(t, path))); d != "" {
			t.Error(d)
		}
	})
}

// FuzzLayers feeds bytes as layers: an error of kind invalid or a file system
// comes out, and nothing is left after an error.
func FuzzLayers(f *testing.F) {
	var b bytes.Buffer
	if err := layerstest.Tar(file("a/b", "x"), symlink("s", "a"), link("h", "s/b"), file("a/.wh.c", ""))(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), []byte("\x1f\x8b\x08\x00"))
	f.Add([]byte("\x28\xb5\x2f\xfd"), b.Bytes()[:700])
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var ls []Layer
		for i, b := range [][]byte{one, two} {
			ls = append(ls, Layer{Name: fmt.Sprint(i), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
		}
		path, err := write(t, ls, Limits{Entries: 1000, Bytes: 1 << 20})
		if err != nil {
			if api.KindOf(err) != api.KindInvalid {
				t.Errorf("%s: %v", api.KindOf(err), err)
			}
			return
		}
		read(t, path)
	})
}

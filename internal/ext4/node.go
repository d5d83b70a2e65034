package ext4

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Node is a file, folder, link or device of a file system being built; it may
// have several names. Zero is none.
type Node uint32

// Root is the root folder.
const Root Node = 1

// Entry is what a folder holds under a name. The builder does not look at Tag.
type Entry struct {
	Node Node
	Tag  uint32
}

// Attr is what a node is.
type Attr struct {
	Mode     uint32 // type and permissions, as in unix.S_IFREG|0o644
	UID, GID uint32
	Time     time.Time // of change, content and last access alike
	Device   uint64    // of a device, as unix.Mkdev makes it
	Target   string    // of a symbolic link
	Xattrs   map[string]string
}

// node is kept small: a file system may have a million. What few nodes have is
// behind a pointer.
type node struct {
	size   int64
	time   uint64 // as ext4 stores it
	target string
	more   *more

	start, count uint32 // the blocks of a file in one run
	uid, gid     uint32
	links        uint32
	xattrBlock   uint32
	inode        uint32 // the number, given at the end
	device       uint32
	mode         uint16
}

type more struct {
	children map[string]Entry
	extents  []extent // of a file in several runs
	index    []byte   // of its extents, when they do not fit into the inode
	xattrs   []byte   // as they lie in the inode
}

func (n *node) is(typ uint32) bool { return uint32(n.mode)&unix.S_IFMT == typ }

func (n *node) extra() *more {
	if n.more == nil {
		n.more = &more{}
	}
	return n.more
}

func (n *node) extents() []extent {
	switch {
	case n.more != nil && n.more.extents != nil:
		return n.more.extents
	case n.count > 0:
		return split(nil, extent{0, n.start, n.count})
	}
	return nil
}

// split cuts a run into extents of a size that ext4 has.
func split(list []extent, e extent) []extent {
	for ; e.count > maxExtent; e = (extent{e.logical + maxExtent, e.start + maxExtent, e.count - maxExtent}) {
		list = append(list, extent{e.logical, e.start, maxExtent})
	}
	return append(list, e)
}

const slabNodes = 1024

func (b *Builder) at(n Node) *node { return &b.slabs[n/slabNodes][n%slabNodes] }

func (b *Builder) add() (Node, *node) {
	id := b.nodes
	if id%slabNodes == 0 {
		b.slabs = append(b.slabs, new([slabNodes]node))
	}
	b.nodes++
	return id, b.at(id)
}

// Make makes a node of any type but a regular file, without a name yet.
func (b *Builder) Make(a Attr) (Node, error) {
	id, n := b.add()
	if a.Mode&unix.S_IFMT == unix.S_IFDIR {
		n.links = 1 // its own "."
		n.extra().children = map[string]Entry{}
	}
	return id, b.set(n, a)
}

// Set changes what a node is, except its type.
func (b *Builder) Set(id Node, a Attr) error {
	n := b.at(id)
	if !n.is(a.Mode & unix.S_IFMT) {
		return fmt.Errorf("node of mode %o cannot become %o", n.mode, a.Mode)
	}
	return b.set(n, a)
}

func (b *Builder) set(n *node, a Attr) error {
	inode, block, err := packXattrs(a.Xattrs)
	if err != nil {
		return err
	}
	if n.xattrBlock = 0; block != nil {
		n.xattrBlock = b.out.pos()
		if err := b.out.append(block); err != nil {
			return err
		}
	}
	if inode != nil {
		n.extra().xattrs = inode
	} else if n.more != nil {
		n.more.xattrs = nil
	}
	n.mode, n.uid, n.gid, n.time = uint16(a.Mode), a.UID, a.GID, storedTime(a.Time)
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		n.mode |= 0o777
		return b.setTarget(n, a.Target)
	case unix.S_IFCHR, unix.S_IFBLK:
		n.device, err = storedDevice(a.Device)
		return err
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO, unix.S_IFSOCK:
		return nil
	}
	return fmt.Errorf("mode %o has no type that a file system knows", a.Mode)
}

func (b *Builder) setTarget(n *node, target string) error {
	if target == "" || len(target) >= maxPath || strings.ContainsRune(target, 0) {
		return fmt.Errorf("symbolic link to %.80q: target is not valid", target)
	}
	n.target, n.size = strings.Clone(target), int64(len(target))
	if len(target) <= shortTarget {
		return nil
	}
	var block [blockSize]byte
	copy(block[:], target)
	n.start, n.count = b.out.pos(), 1
	return b.out.append(block[:])
}

// storedTime is a time as ext4 has it: 32 bits of seconds with a sign, two of
// what they wrapped over, 30 of nanoseconds.
func storedTime(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	s, ns := t.Unix(), uint64(t.Nanosecond())
	const first, last = -0x80000000, 0x37fffffff
	if s < first || s > last {
		s, ns = min(max(s, first), last), 0
	}
	wraps := uint64(s-int64(int32(s))) >> 32 & 3
	return uint64(uint32(s)) | wraps<<32 | ns<<34
}

// storedDevice is a device number in the kernel's encoding of 12 and 20 bits.
func storedDevice(d uint64) (uint32, error) {
	major, minor := unix.Major(d), unix.Minor(d)
	if major >= 1<<12 || minor >= 1<<20 {
		return 0, fmt.Errorf("device %d:%d: numbers go to 4095:1048575", major, minor)
	}
	return minor&0xff | major<<8 | minor>>8<<20, nil
}

// Type is a node's type, as in unix.S_IFDIR.
func (b *Builder) Type(id Node) uint32 { return uint32(b.at(id).mode) & unix.S_IFMT }

// Target is where a symbolic link leads.
func (b *Builder) Target(id Node) string { return b.at(id).target }

// Lookup finds a name in a folder.
func (b *Builder) Lookup(dir Node, name string) (Entry, bool) {
	e, ok := b.at(dir).more.children[name]
	return e, ok
}

// Names are those in a folder, in no order. The folder may be changed meanwhile.
func (b *Builder) Names(dir Node) iter.Seq2[string, Entry] {
	return maps.All(b.at(dir).more.children)
}

// Put gives a node a name in a folder. What had the name must have been removed,
// or be the same node, whose tag changes. A folder has one name only, and it is
// the caller's duty that it is not inside itself.
func (b *Builder) Put(dir Node, name string, e Entry) error {
	d, n := b.at(dir), b.at(e.Node)
	if old, ok := d.more.children[name]; ok {
		if old.Node != e.Node {
			return fmt.Errorf("%.80q is there twice", name)
		}
		d.more.children[name] = e
		return nil
	}
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name %.80q is not valid", name)
	}
	if n.links >= maxLinks && !n.is(unix.S_IFDIR) {
		return fmt.Errorf("%.80q: a file has at most %d names", name, maxLinks)
	}
	d.more.children[strings.Clone(name)] = e
	n.links++
	if n.is(unix.S_IFDIR) {
		d.links++
	}
	return nil
}

// Remove takes a name out of a folder; what was in a removed folder goes too.
func (b *Builder) Remove(dir Node, name string) {
	d := b.at(dir)
	e, ok := d.more.children[name]
	if !ok {
		return
	}
	delete(d.more.children, name)
	if b.at(e.Node).is(unix.S_IFDIR) {
		d.links--
	}
	// Not recursive: folders may be thousands deep.
	for gone := []Node{e.Node}; len(gone) > 0; {
		n := b.at(gone[len(gone)-1])
		gone = gone[:len(gone)-1]
		if n.is(unix.S_IFDIR) {
			for _, c := range n.more.children {
				gone = append(gone, c.Node)
			}
			n.links = 0
		} else {
			n.links--
		}
		if n.links == 0 {
			*n = node{}
		}
	}
}

// sorted gives a folder's names by inode number, as they are written.
func (b *Builder) sorted(n *node) []string {
	children := n.more.children
	return slices.SortedFunc(maps.Keys(children), func(x, y string) int {
		if d := int64(b.at(children[x].Node).inode) - int64(b.at(children[y].Node).inode); d != 0 {
			return int(d)
		}
		return strings.Compare(x, y)
	})
}

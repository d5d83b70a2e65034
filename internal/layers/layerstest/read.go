package layerstest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// File is what a file system has at a path.
type File struct {
	Mode     uint32 // type and permissions
	UID, GID uint32
	Links    int
	Inode    uint64
	Size     int64 // of a file or a link
	Time     time.Time
	Device   uint64
	Target   string
	Data     string            // of a file
	Xattrs   map[string]string // Read leaves them out
}

// Read reads an ext4 file as internal/ext4 writes it, all but extended
// attributes: every path from "/" on. It trusts the file.
func Read(name string) (map[string]File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r := reader{f: f, files: map[string]File{}}
	super := r.bytes(1024, 1024)
	r.groupInodes = le.Uint32(super[0x28:])
	r.folder("/", 2)
	return r.files, r.err
}

var le = binary.LittleEndian

type reader struct {
	f           *os.File
	groupInodes uint32
	files       map[string]File
	err         error
}

func (r *reader) bytes(at int64, n int) []byte {
	b := make([]byte, n)
	if _, err := r.f.ReadAt(b, at); err != nil && r.err == nil {
		r.err = fmt.Errorf("%d bytes at %d: %w", n, at, err)
	}
	return b
}

// file reads an inode, its content too.
func (r *reader) file(inode uint32) (File, []byte) {
	group, index := (inode-1)/r.groupInodes, (inode-1)%r.groupInodes
	table := le.Uint32(r.bytes(4096+32*int64(group)+8, 4))
	b := r.bytes(int64(table)*4096+int64(index)*256, 256)
	extra := le.Uint32(b[0x88:])
	seconds := int64(int32(le.Uint32(b[0x10:]))) + int64(extra&3)<<32
	f := File{
		Mode:  uint32(le.Uint16(b)),
		UID:   uint32(le.Uint16(b[0x02:])) | uint32(le.Uint16(b[0x78:]))<<16,
		GID:   uint32(le.Uint16(b[0x18:])) | uint32(le.Uint16(b[0x7a:]))<<16,
		Links: int(le.Uint16(b[0x1a:])), Inode: uint64(inode),
		Size: int64(le.Uint32(b[0x04:])) | int64(le.Uint32(b[0x6c:]))<<32,
		Time: time.Unix(seconds, int64(extra>>2)).UTC(),
	}
	block := b[0x28:]
	switch f.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		if old := le.Uint32(block); old != 0 {
			f.Device = unix.Mkdev(old>>8, old&0xff)
		} else {
			d := le.Uint32(block[4:])
			f.Device = unix.Mkdev(d>>8&0xfff, d&0xff|d>>20<<8)
		}
		return f, nil
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
	default:
		return f, nil
	}
	if le.Uint32(b[0x20:])&0x80000 == 0 {
		return f, block[:f.Size]
	}
	data := make([]byte, f.Size)
	r.extents(block, data)
	return f, data
}

// extents fills data from a node of the tree of extents.
func (r *reader) extents(node, data []byte) {
	entries, depth := int(le.Uint16(node[2:])), le.Uint16(node[6:])
	for i := range entries {
		e := node[12*(i+1):]
		if depth > 0 {
			r.extents(r.bytes(int64(le.Uint32(e[4:]))*4096, 4096), data)
			continue
		}
		to := data[int64(le.Uint32(e))*4096:]
		to = to[:min(len(to), int(le.Uint16(e[4:]))*4096)]
		copy(to, r.bytes(int64(le.Uint32(e[8:]))*4096, len(to)))
	}
}

func (r *reader) folder(name string, inode uint32) {
	f, data := r.file(inode)
	f.Size = 0
	r.files[name] = f
	for len(data) > 0 && r.err == nil {
		child, size := le.Uint32(data), int(le.Uint16(data[4:]))
		base, typ := string(data[8:8+int(data[6])]), data[7]
		data = data[size:]
		switch {
		case child == 0 || base == "." || base == "..":
		case typ == 2:
			r.folder(path.Join(name, base), child)
		default:
			f, content := r.file(child)
			if f.Mode&unix.S_IFMT == unix.S_IFLNK {
				f.Target = string(content)
			} else {
				f.Data = string(content)
			}
			r.files[path.Join(name, base)] = f
		}
	}
}

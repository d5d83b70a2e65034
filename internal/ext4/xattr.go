package ext4

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Room for extended attributes: behind the fields of the inode, then one block.
const (
	inodeXattrs = inodeExtra - 4 - 4 // less the magic number and the end
	blockXattrs = blockSize - 32 - 4 // less the header and the end
)

type xattr struct {
	index byte
	name  string
	value string
}

func (x xattr) entrySize() int { return 16 + (len(x.name)+3)&^3 }
func (x xattr) valueSize() int { return (len(x.value) + 3) &^ 3 }
func (x xattr) size() int      { return x.entrySize() + x.valueSize() }

// storedXattr is an attribute as ext4 keeps it. Attributes of a name space that
// Linux does not have (those of macOS in its archives) are not kept: ok is false.
func storedXattr(name, value string) (x xattr, ok bool, err error) {
	switch name {
	case "system.posix_acl_access", "system.posix_acl_default":
		index := byte(2)
		if name == "system.posix_acl_default" {
			index = 3
		}
		value, err := storedACL(value)
		return xattr{index, "", value}, err == nil, err
	}
	for prefix, index := range map[string]byte{"user.": 1, "trusted.": 4, "security.": 6} {
		if rest, has := strings.CutPrefix(name, prefix); has && rest != "" {
			if len(name) > maxName || strings.ContainsRune(rest, 0) {
				return xattr{}, false, fmt.Errorf("extended attribute %.80q: name is not valid", name)
			}
			return xattr{index, rest, value}, true, nil
		}
	}
	return xattr{}, false, nil
}

// packXattrs divides attributes between inode and block; what is empty is nil.
func packXattrs(attrs map[string]string) (inode, block []byte, err error) {
	var in, out []xattr
	inLeft, outLeft := inodeXattrs, blockXattrs
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		x, ok, err := storedXattr(name, attrs[name])
		if err != nil {
			return nil, nil, err
		}
		switch size := x.size(); {
		case !ok:
		case size <= inLeft:
			in, inLeft = append(in, x), inLeft-size
		case size <= outLeft:
			out, outLeft = append(out, x), outLeft-size
		default:
			return nil, nil, fmt.Errorf("extended attribute %.80q: %d bytes are more than ext4 holds beside the others (one block of %d)",
				name, len(attrs[name]), blockSize)
		}
	}
	if len(in) > 0 {
		inode = make([]byte, inodeExtra)
		le.PutUint32(inode, xattrMagic)
		putXattrs(inode[4:], in, 0)
	}
	if len(out) > 0 {
		// The kernel looks for them in this order.
		slices.SortFunc(out, func(a, b xattr) int {
			return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
		})
		block = make([]byte, blockSize)
		le.PutUint32(block, xattrMagic)
		le.PutUint32(block[4:], 1) // user
		le.PutUint32(block[8:], 1) // block
		putXattrs(block[32:], out, 32)
	}
	return inode, block, nil
}

// putXattrs writes entries from the front of b and values from its end; offsets
// of values count from before bytes in front of b.
func putXattrs(b []byte, list []xattr, before int) {
	end := len(b)
	for at := 0; len(list) > 0; list = list[1:] {
		x := list[0]
		end -= x.valueSize()
		e := b[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		le.PutUint16(e[2:], uint16(end+before))
		le.PutUint32(e[8:], uint32(len(x.value)))
		le.PutUint32(e[12:], x.hash())
		copy(e[16:], x.name)
		copy(b[end:], x.value)
		at += x.entrySize()
	}
}

func (x xattr) hash() uint32 {
	var h uint32
	for i := range len(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(x.name[i])
	}
	for v := x.value; len(v) > 0; v = v[min(4, len(v)):] {
		var word [4]byte
		copy(word[:], v)
		h = h<<16 ^ h>>16 ^ le.Uint32(word[:])
	}
	return h
}

// storedACL turns a POSIX access list from the form system calls use into
// ext4's own: version 1, entries without an id four bytes long.
func storedACL(v string) (string, error) {
	if len(v) < 4 || (len(v)-4)%8 != 0 || v[:4] != "\x02\x00\x00\x00" {
		return "", errors.New("access list is malformed")
	}
	var b strings.Builder
	b.WriteString("\x01\x00\x00\x00")
	for e := v[4:]; len(e) > 0; e = e[8:] {
		switch tag := uint16(e[0]) | uint16(e[1])<<8; tag {
		case 0x01, 0x04, 0x10, 0x20: // owner, owning group, mask, others
			b.WriteString(e[:4])
		case 0x02, 0x08: // a user, a group
			b.WriteString(e[:8])
		default:
			return "", fmt.Errorf("access list has an unknown entry %#x", tag)
		}
	}
	return b.String(), nil
}

package ext4

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPath bounds the path of a member, in bytes, as Linux does.
const maxPath = 4096

// maxName bounds a name, in bytes.
const maxName = 255

// maxID is the largest owner; the one above means "no change" to the kernel.
const maxID = 1<<32 - 2

// xattrPrefix is how pax names an extended attribute.
const xattrPrefix = "SCHILY.xattr."

// MemberPath gives the path of a member within its file system, relative and
// clean, "" for the root. Paths that climb out of the root, and names that no
// file system takes, are errors.
func MemberPath(name string) (string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("member %.80q: path is not valid", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("member %.80q: path leaves the archive", name)
		}
		if len(part) > maxName {
			return "", fmt.Errorf("member %.80q: name is longer than 255 bytes", name)
		}
	}
	return path.Clean("/" + name)[1:], nil
}

// Member is a copy of the header with what a file system keeps, and no more,
// under a new path; for a hard link, target is the path it is another name of.
// It is what Write's archive takes.
func Member(h *tar.Header, name, target string) *tar.Header {
	m := &tar.Header{
		Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o7777,
		Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, AccessTime: h.ModTime, ChangeTime: h.ModTime, Devmajor: h.Devmajor, Devminor: h.Devminor,
		Format: tar.FormatPAX,
	}
	switch h.Typeflag {
	case tar.TypeLink:
		m.Linkname, m.Size = target, 0
	case tar.TypeSymlink, tar.TypeDir, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		m.Size = 0
	case tar.TypeGNUSparse, tar.TypeCont:
		m.Typeflag = tar.TypeReg
	}
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, xattrPrefix) {
			if m.PAXRecords == nil {
				m.PAXRecords = map[string]string{}
			}
			m.PAXRecords[k] = v
		}
	}
	return m
}

// memberType is the type of the node that a member becomes.
func memberType(flag byte) (mode uint32, ok bool) {
	switch flag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return unix.S_IFREG, true
	case tar.TypeDir:
		return unix.S_IFDIR, true
	case tar.TypeSymlink:
		return unix.S_IFLNK, true
	case tar.TypeChar:
		return unix.S_IFCHR, true
	case tar.TypeBlock:
		return unix.S_IFBLK, true
	case tar.TypeFifo:
		return unix.S_IFIFO, true
	}
	return 0, false
}

// MemberAttr gives what a member is, or an error saying why no file system has
// such a thing. It is not for hard links.
func MemberAttr(h *tar.Header) (Attr, error) {
	typ, ok := memberType(h.Typeflag)
	if !ok {
		return Attr{}, fmt.Errorf("type %q is unknown", h.Typeflag)
	}
	if int64(h.Uid) < 0 || int64(h.Uid) > maxID || int64(h.Gid) < 0 || int64(h.Gid) > maxID {
		return Attr{}, fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	a := Attr{Mode: typ | uint32(h.Mode&0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid), Time: h.ModTime}
	switch typ {
	case unix.S_IFLNK:
		a.Target = h.Linkname
	case unix.S_IFCHR, unix.S_IFBLK:
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return Attr{}, fmt.Errorf("device %d:%d: numbers go to 4095:1048575", h.Devmajor, h.Devminor)
		}
		a.Device = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrPrefix)
		// Linux has the user's attributes on files and folders only.
		if !ok || strings.HasPrefix(name, "user.") && typ != unix.S_IFREG && typ != unix.S_IFDIR {
			continue
		}
		if a.Xattrs == nil {
			a.Xattrs = map[string]string{}
		}
		a.Xattrs[name] = v
	}
	return a, nil
}

package ext4

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"
)

// maxPath bounds the path of a member, in bytes, as Linux does.
const maxPath = 4096

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
		if len(part) > 255 {
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

// Package compression tells by a file's first bytes how it is compressed.
package compression

import "bytes"

// Format is a way to compress a file.
type Format int

// The formats that archives come in. None is any other content.
const (
	None Format = iota
	Gzip
	Zstd
	Xz
	Bzip2
)

// Head is how many bytes Of needs to see; fewer do where there are no more.
const Head = 6

// Of gives the format of what begins with head. Zstd's skippable frame counts as
// zstd: pzstd and seekable archives have one before the first of content (RFC 8878,
// section 3.1.2).
func Of(head []byte) Format {
	starts := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case starts("\x1f\x8b"):
		return Gzip
	case starts("\x28\xb5\x2f\xfd"), len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18":
		return Zstd
	case starts("\xfd7zXZ\x00"):
		return Xz
	case starts("BZh"):
		return Bzip2
	}
	return None
}

package ext4

import "encoding/binary"

// How ext4 lies on the disk (Documentation/filesystems/ext4 of the kernel), as
// far as it is written here: 4 KiB blocks, 32-byte group descriptors, 256-byte
// inodes, all bitmaps and inode tables together behind the data.
const (
	blockSize      = 4096
	groupBlocks    = 8 * blockSize // what one bitmap describes
	descriptorSize = 32
	inodeSize      = 256
	inodeUsed      = 152 // up to the fraction of the time of creation
	inodeExtra     = inodeSize - inodeUsed
	blockInodes    = blockSize / inodeSize

	rootInode  = 2
	firstInode = 11 // those below are reserved

	superblockOffset = 1024

	maxExtent    = 32768                    // blocks an extent spans at most
	extentSize   = 12                       // of an extent, of an index, of the header before them
	inodeExtents = 4                        // in the inode
	leafExtents  = blockSize/extentSize - 1 // in a block of them

	maxLinks    = 65000
	shortTarget = 59 // bytes of a symbolic link's target that fit into the inode
)

// Features: what is not here, a kernel need not know.
const (
	compatible      = 0x8 | 0x200                      // extended attributes; no backups of the superblock (sparse_super2)
	incompatible    = 0x2 | 0x40 | 0x200               // types in folders, extents, metadata anywhere (flex_bg)
	readCompatible  = 0x2 | 0x8 | 0x20 | 0x40 | 0x1000 // large files, sizes in blocks, many subfolders, extra inode fields, read-only
	flagExtents     = 0x80000
	flagHuge        = 0x40000 // an inode's size on the disk counts blocks
	extentMagic     = 0xf30a
	superblockMagic = 0xef53
	xattrMagic      = 0xea020000
)

var le = binary.LittleEndian

// extent is a run of blocks of a file.
type extent struct {
	logical, start, count uint32
}

func putExtentHeader(b []byte, entries, most, depth int) {
	le.PutUint16(b[0:], extentMagic)
	le.PutUint16(b[2:], uint16(entries))
	le.PutUint16(b[4:], uint16(most))
	le.PutUint16(b[6:], uint16(depth))
}

func putExtents(b []byte, list []extent) {
	for i, e := range list {
		at := b[extentSize*i:]
		le.PutUint32(at[0:], e.logical)
		le.PutUint16(at[4:], uint16(e.count))
		le.PutUint32(at[8:], e.start)
	}
}

// superblock is what the caller of put knows.
type superblock struct {
	blocks, freeBlocks, inodes, freeInodes, groupInodes, lostFound uint32
	uuid                                                           [16]byte
}

func (s superblock) put(b []byte) {
	for at, v := range map[int]uint32{
		0x00: s.inodes, 0x04: s.blocks, 0x0c: s.freeBlocks, 0x10: s.freeInodes,
		0x18: 2, 0x1c: 2, // log2 of the block size, from 1 KiB
		0x20: groupBlocks, 0x24: groupBlocks, 0x28: s.groupInodes,
		0x4c: 1, // inodes have a size
		0x54: firstInode,
		0x5c: compatible, 0x60: incompatible, 0x64: readCompatible,
		0x268: s.lostFound,
	} {
		le.PutUint32(b[at:], v)
	}
	for at, v := range map[int]uint16{
		0x38: superblockMagic,
		0x3a: 1, // cleanly unmounted
		0x3c: 1, // go on after errors
		0x58: inodeSize, 0x15c: inodeUsed - 128, 0x15e: inodeUsed - 128,
	} {
		le.PutUint16(b[at:], v)
	}
	copy(b[0x68:], s.uuid[:])
	b[0x174] = 31 // log2 of the groups whose metadata lie together
}

// direntSize is the room a name takes in a folder.
func direntSize(name string) int { return (8 + len(name) + 3) &^ 3 }

func putDirent(b []byte, inode uint32, size int, name string, typ byte) {
	le.PutUint32(b[0:], inode)
	le.PutUint16(b[4:], uint16(size))
	b[6], b[7] = byte(len(name)), typ
	copy(b[8:], name)
}

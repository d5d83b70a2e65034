package ext4

import (
	"fmt"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"
)

// layout is what is known of a file system when all else is written.
type layout struct {
	super       superblock
	descriptors []byte
	used        []byte // a bit for each block
	data        uint32 // blocks up to here hold the data
}

// finish numbers the inodes and writes folders, inode tables and bitmaps.
func (b *Builder) finish(uuid [16]byte) (*layout, error) {
	lost, ok := b.Lookup(Root, "lost+found")
	if !ok {
		id, err := b.Make(Attr{Mode: unix.S_IFDIR | 0o700})
		if err != nil {
			return nil, err
		}
		lost = Entry{Node: id}
		if err := b.Put(Root, "lost+found", lost); err != nil {
			return nil, err
		}
	}
	inodes := uint32(firstInode - 1)
	for id := Root; id < b.nodes; id++ {
		if n := b.at(id); id == Root {
			n.inode = rootInode
		} else if n.named() {
			inodes++
			n.inode = inodes
		}
	}
	if err := b.writeFolders(); err != nil {
		return nil, err
	}
	if err := b.writeIndexes(); err != nil {
		return nil, err
	}
	l := &layout{data: b.out.pos()}
	l.super = superblock{uuid: uuid, lostFound: b.at(lost.Node).inode}
	groups, tableBlocks := plan(l.data, inodes)
	l.super.groupInodes, l.super.inodes = tableBlocks*blockInodes, groups*tableBlocks*blockInodes
	l.used = make([]byte, groups*blockSize)
	b.markUsed(l)
	table := b.out.pos()
	dirs, err := b.writeInodes(l, int(groups*tableBlocks))
	if err != nil {
		return nil, err
	}
	return l, b.writeBitmaps(l, dirs, table, tableBlocks, inodes)
}

// named: the node is in the tree. A file may have been made and never named.
func (n *node) named() bool {
	if n.is(unix.S_IFDIR) {
		return n.links > 1
	}
	return n.links > 0
}

// plan gives the number of groups, and of blocks of each group's inode table.
func plan(data, inodes uint32) (groups, tableBlocks uint32) {
	for groups = 1; ; groups++ {
		tableBlocks = (inodes + groups*blockInodes - 1) / (groups * blockInodes)
		if tableBlocks*blockInodes <= groupBlocks && data+groups*(tableBlocks+2) <= groups*groupBlocks {
			return groups, tableBlocks
		}
	}
}

func (b *Builder) writeFolders() error {
	parents := make([]Node, b.nodes)
	parents[Root] = Root
	for id := Root; id < b.nodes; id++ {
		if n := b.at(id); n.is(unix.S_IFDIR) {
			for _, c := range n.more.children {
				parents[c.Node] = id
			}
		}
	}
	for id := Root; id < b.nodes; id++ {
		if n := b.at(id); n.is(unix.S_IFDIR) && n.named() {
			if err := b.writeFolder(n, b.at(parents[id])); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeFolder writes the names of a folder, block after block; the last entry of
// a block spans what is left of it.
func (b *Builder) writeFolder(n, parent *node) error {
	start := b.out.pos()
	var block [blockSize]byte
	at, last := 0, 0
	put := func(inode uint32, name string, mode uint16) error {
		size := direntSize(name)
		if at+size > blockSize {
			le.PutUint16(block[last+4:], uint16(blockSize-last))
			if err := b.out.append(block[:]); err != nil {
				return err
			}
			clear(block[:])
			at = 0
		}
		putDirent(block[at:], inode, size, name, direntType(mode))
		last, at = at, at+size
		return nil
	}
	if err := put(n.inode, ".", n.mode); err != nil {
		return err
	}
	if err := put(parent.inode, "..", parent.mode); err != nil {
		return err
	}
	for _, name := range b.sorted(n) {
		child := b.at(n.more.children[name].Node)
		if err := put(child.inode, name, child.mode); err != nil {
			return err
		}
	}
	le.PutUint16(block[last+4:], uint16(blockSize-last))
	if err := b.out.append(block[:]); err != nil {
		return err
	}
	n.start, n.count = start, b.out.pos()-start
	n.size = int64(n.count) * blockSize
	return nil
}

func direntType(mode uint16) byte {
	switch uint32(mode) & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	case unix.S_IFLNK:
		return 7
	}
	return 0
}

// writeIndexes writes the extents of those files that have too many for their
// inode.
func (b *Builder) writeIndexes() error {
	for id := Root; id < b.nodes; id++ {
		n := b.at(id)
		list := n.extents()
		if len(list) <= inodeExtents || !n.named() {
			continue
		}
		leaves := (len(list) + leafExtents - 1) / leafExtents
		if leaves > inodeExtents {
			return fmt.Errorf("a file of %d bytes has %d runs of blocks, more than %d", n.size, len(list), inodeExtents*leafExtents)
		}
		index := make([]byte, extentSize*(1+leaves))
		putExtentHeader(index, leaves, inodeExtents, 1)
		for i := range leaves {
			part := list[i*leafExtents : min((i+1)*leafExtents, len(list))]
			at := index[extentSize*(1+i):]
			le.PutUint32(at[0:], part[0].logical)
			le.PutUint32(at[4:], b.out.pos())
			var block [blockSize]byte
			putExtentHeader(block[:], len(part), leafExtents, 0)
			putExtents(block[extentSize:], part)
			if err := b.out.append(block[:]); err != nil {
				return err
			}
		}
		n.extra().index = index
	}
	return nil
}

// markUsed notes the blocks of all that is in the tree.
func (b *Builder) markUsed(l *layout) {
	for id := Root; id < b.nodes; id++ {
		n := b.at(id)
		if !n.named() {
			continue
		}
		for _, e := range n.extents() {
			l.use(e.start, e.count)
		}
		if n.xattrBlock != 0 {
			l.use(n.xattrBlock, 1)
		}
		if n.more != nil && n.more.index != nil {
			for at := extentSize; at < len(n.more.index); at += extentSize {
				l.use(le.Uint32(n.more.index[at+4:]), 1)
			}
		}
	}
}

// writeInodes writes the tables of all groups, which lie together, and counts
// the folders of each group.
func (b *Builder) writeInodes(l *layout, tableBlocks int) (dirs []uint16, err error) {
	dirs = make([]uint16, l.super.inodes/l.super.groupInodes)
	var block [blockSize]byte
	at := rootInode - 1
	written := 0
	put := func(n *node) error {
		index := int(n.inode) - 1
		for ; at/blockInodes < index/blockInodes; at = (at/blockInodes + 1) * blockInodes {
			if err := b.out.append(block[:]); err != nil {
				return err
			}
			clear(block[:])
			written++
		}
		at = index
		n.put(block[index%blockInodes*inodeSize:])
		if n.is(unix.S_IFDIR) {
			dirs[uint32(index)/l.super.groupInodes]++
		}
		return nil
	}
	for id := Root; id < b.nodes; id++ {
		if n := b.at(id); n.named() {
			if err := put(n); err != nil {
				return nil, err
			}
		}
	}
	for ; written < tableBlocks; written++ {
		if err := b.out.append(block[:]); err != nil {
			return nil, err
		}
		clear(block[:])
	}
	return dirs, nil
}

// put writes an inode.
func (n *node) put(b []byte) {
	links := n.links
	if links > maxLinks && n.is(unix.S_IFDIR) {
		links = 1 // more than can be counted
	}
	le.PutUint16(b[0x00:], n.mode)
	le.PutUint16(b[0x02:], uint16(n.uid))
	le.PutUint32(b[0x04:], uint32(n.size))
	le.PutUint16(b[0x18:], uint16(n.gid))
	le.PutUint16(b[0x1a:], uint16(links))
	le.PutUint32(b[0x68:], n.xattrBlock)
	le.PutUint32(b[0x6c:], uint32(n.size>>32))
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	le.PutUint16(b[0x80:], inodeUsed-128)
	for _, at := range []int{0x08, 0x0c, 0x10, 0x90} { // read, changed, written, made
		le.PutUint32(b[at:], uint32(n.time))
	}
	for _, at := range []int{0x84, 0x88, 0x8c, 0x94} { // their fractions
		le.PutUint32(b[at:], uint32(n.time>>32))
	}
	if n.more != nil {
		copy(b[inodeUsed:], n.more.xattrs)
	}
	flags, blocks := uint32(flagHuge), uint32(0)
	if n.xattrBlock != 0 {
		blocks++
	}
	data := b[0x28 : 0x28+60]
	switch {
	case n.is(unix.S_IFCHR) || n.is(unix.S_IFBLK):
		// Small numbers have an older form, which the kernel looks at first.
		if n.device < 1<<16 {
			le.PutUint32(data, n.device)
		} else {
			le.PutUint32(data[4:], n.device)
		}
	case n.is(unix.S_IFLNK) && n.count == 0:
		copy(data, n.target)
	case n.is(unix.S_IFREG) || n.is(unix.S_IFDIR) || n.is(unix.S_IFLNK):
		flags |= flagExtents
		list := n.extents()
		for _, e := range list {
			blocks += e.count
		}
		if n.more != nil && n.more.index != nil {
			copy(data, n.more.index)
			blocks += uint32(len(n.more.index)/extentSize - 1)
			break
		}
		putExtentHeader(data, len(list), inodeExtents, 0)
		putExtents(data[extentSize:], list)
	}
	le.PutUint32(b[0x1c:], blocks)
	le.PutUint32(b[0x20:], flags)
}

func (l *layout) use(start, count uint32) {
	for i := start; i < start+count; i++ {
		l.used[i/8] |= 1 << (i % 8)
	}
}

// writeBitmaps writes the bitmaps of blocks and inodes of each group, and makes
// the descriptors and the superblock.
func (b *Builder) writeBitmaps(l *layout, dirs []uint16, table, tableBlocks, inodes uint32) error {
	groups := uint32(len(dirs))
	bitmaps := b.out.pos()
	meta := bitmaps + 2*groups
	// The last group may be small, but must be there.
	l.super.blocks = max(meta, (groups-1)*groupBlocks+1)
	l.use(0, 1+(groups*descriptorSize+blockSize-1)/blockSize)
	l.use(table, meta-table)
	l.use(l.super.blocks, groups*groupBlocks-l.super.blocks) // not there, so not free
	l.descriptors = make([]byte, groups*descriptorSize)
	for g := range groups {
		blocks := l.used[g*blockSize : (g+1)*blockSize]
		var bitmap [blockSize]byte
		usedInodes := min(max(int(inodes)-int(g*l.super.groupInodes), 0), int(l.super.groupInodes))
		fillBits(bitmap[:], 0, usedInodes)
		fillBits(bitmap[:], int(l.super.groupInodes), groupBlocks) // padding
		if err := b.out.append(blocks); err != nil {
			return err
		}
		if err := b.out.append(bitmap[:]); err != nil {
			return err
		}
		free := uint32(countZeros(blocks))
		d := l.descriptors[g*descriptorSize:]
		le.PutUint32(d[0:], bitmaps+2*g)
		le.PutUint32(d[4:], bitmaps+2*g+1)
		le.PutUint32(d[8:], table+g*tableBlocks)
		le.PutUint16(d[12:], uint16(free))
		le.PutUint16(d[14:], uint16(l.super.groupInodes-uint32(usedInodes)))
		le.PutUint16(d[16:], dirs[g])
		l.super.freeBlocks += free
		l.super.freeInodes += l.super.groupInodes - uint32(usedInodes)
	}
	return nil
}

// write writes what lies in front, and gives back the blocks of what was removed.
func (l *layout) write(f *os.File) error {
	if err := f.Truncate(int64(l.super.blocks) * blockSize); err != nil {
		return err
	}
	var front [blockSize]byte
	l.super.put(front[superblockOffset:])
	if _, err := f.WriteAt(front[:], 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(l.descriptors, blockSize); err != nil {
		return err
	}
	for start := uint32(firstData); start < l.data; {
		if l.isUsed(start) {
			start++
			continue
		}
		end := start + 1
		for end < l.data && !l.isUsed(end) {
			end++
		}
		if err := clearBlocks(f, start, end); err != nil {
			return fmt.Errorf("cannot free blocks: %w", err)
		}
		start = end
	}
	return nil
}

func fillBits(b []byte, from, to int) {
	for i := from; i < to; i++ {
		b[i/8] |= 1 << (i % 8)
	}
}

func countZeros(b []byte) int {
	n := 8 * len(b)
	for _, x := range b {
		n -= bits.OnesCount8(x)
	}
	return n
}

func (l *layout) isUsed(block uint32) bool { return l.used[block/8]&(1<<(block%8)) != 0 }

// clearBlocks makes a hole, or zeros where the host cannot.
func clearBlocks(f *os.File, start, end uint32) error {
	at, n := int64(start)*blockSize, int64(end-start)*blockSize
	if unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n) == nil {
		return nil
	}
	zeros := make([]byte, min(n, chunkSize))
	for n > 0 {
		part := zeros[:min(n, chunkSize)]
		if _, err := f.WriteAt(part, at); err != nil {
			return err
		}
		at, n = at+int64(len(part)), n-int64(len(part))
	}
	return nil
}

package ext4

import (
	"encoding/binary"
	"fmt"
	"os"
)

// Where things stand in a superblock and in a 32-byte group descriptor
// (Documentation/filesystems/ext4 of the kernel).
const (
	superblockOffset = 1024
	sbBlocks         = 0x04
	sbBlocksPerGroup = 0x20
	sbInodesPerGroup = 0x28
	sbMagic          = 0x38
	sbUUID           = 0x68
	blockSize        = 4096
	descriptorSize   = 32
	gdInodeBitmap    = 0x04
)

// finish does what the converter leaves undone: the bits of each inode bitmap
// beyond the group's inodes are set, as e2fsck wants them, and the file system
// gets its UUID, without which an overlay cannot tell its lower file systems
// apart.
func finish(f *os.File, uuid [16]byte) error {
	var sb [1024]byte
	if _, err := f.ReadAt(sb[:], superblockOffset); err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(sb[sbMagic:]) != 0xef53 {
		return fmt.Errorf("no superblock was written")
	}
	blocks := binary.LittleEndian.Uint32(sb[sbBlocks:])
	perGroup := binary.LittleEndian.Uint32(sb[sbBlocksPerGroup:])
	inodes := binary.LittleEndian.Uint32(sb[sbInodesPerGroup:])
	if perGroup == 0 || inodes > blockSize*8 {
		return fmt.Errorf("superblock is wrong: %d blocks and %d inodes a group", perGroup, inodes)
	}
	groups := (blocks + perGroup - 1) / perGroup
	for g := range groups {
		var gd [descriptorSize]byte
		if _, err := f.ReadAt(gd[:], blockSize+int64(g)*descriptorSize); err != nil {
			return err
		}
		at := int64(binary.LittleEndian.Uint32(gd[gdInodeBitmap:])) * blockSize
		var bitmap [blockSize]byte
		if _, err := f.ReadAt(bitmap[:], at); err != nil {
			return err
		}
		for i := inodes; i < blockSize*8; i++ {
			bitmap[i/8] |= 1 << (i % 8)
		}
		if _, err := f.WriteAt(bitmap[:], at); err != nil {
			return err
		}
	}
	copy(sb[sbUUID:], uuid[:])
	_, err := f.WriteAt(sb[:], superblockOffset)
	return err
}

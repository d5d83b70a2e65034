package ext4

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxSize is the largest file system, in bytes. It decides how much room is left
// for group descriptors in front, so it is not simply huge.
const maxSize = 256 << 30

const (
	maxBlocks        = maxSize / blockSize
	descriptorBlocks = maxBlocks / groupBlocks * descriptorSize / blockSize
	firstData        = 1 + descriptorBlocks
)

// Builder is a file system being made. Content goes to the file as it comes, in
// order; names and attributes stay in memory until the end, about 200 bytes a
// file, so they can still change: what is removed leaves free blocks. For one
// goroutine.
type Builder struct {
	out   *output
	slabs []*[slabNodes]node
	nodes Node // the next
}

// Build creates the file path and makes a file system in it of what fill puts
// into the builder. The root folder is there before, 0755 and root's; lost+found
// is added where there is none. The file system is flagged read-only, has no
// journal and no more free space than what was removed leaves; e2fsck finds
// nothing to remark. The same calls give the same bytes. uuid names it.
//
// An error of fill is returned as it is. On any error, and on a panic, the file
// is removed.
func Build(path string, uuid [16]byte, fill func(*Builder) error) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	whole := false
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err, whole = cerr, false
		}
		if !whole {
			_ = os.Remove(path)
		}
	}()
	b := &Builder{out: newOutput(f, firstData, maxBlocks)}
	closed := false
	defer func() {
		if !closed {
			_ = b.out.close()
		}
	}()
	b.add() // there is no node zero
	root, err := b.Make(Attr{Mode: unix.S_IFDIR | 0o755})
	if err != nil {
		return err
	}
	b.at(root).links++ // its own ".."
	if err := fill(b); err != nil {
		return err
	}
	l, err := b.finish(uuid)
	closed = true
	if cerr := b.out.close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = l.write(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("cannot write file system %s: %w", path, err)
	}
	whole = true
	return nil
}

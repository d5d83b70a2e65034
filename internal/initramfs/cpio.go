package initramfs

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// Modes of the members, as the newc format has them.
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
	modeLink = 0o120000
)

// alignment of each archive's end: the kernel takes any multiple of four, cpio
// tools write 512.
const alignment = 512

// CPIO writes one archive in the newc format (Documentation/driver-api/early-userspace/buffer-format.rst
// of the kernel). All members belong to root and have no time, so that equal
// content gives equal bytes. Errors stick: Close reports the first.
type CPIO struct {
	w    io.Writer
	n    int64
	ino  uint32
	err  error
	dirs map[string]bool
}

// NewCPIO starts an archive on w.
func NewCPIO(w io.Writer) *CPIO { return &CPIO{w: w, dirs: map[string]bool{}} }

// Dir adds a folder, and its parents where they are missing.
func (c *CPIO) Dir(name string, perm uint32) {
	name = clean(name)
	if name == "" || c.dirs[name] {
		return
	}
	c.Dir(path.Dir(name), 0o755)
	c.dirs[name] = true
	c.header(name, modeDir|perm, 2, 0, 0, 0)
}

// File adds a file of size bytes read from r. Missing parents are added.
func (c *CPIO) File(name string, perm uint32, size int64, r io.Reader) {
	name = clean(name)
	c.Dir(path.Dir(name), 0o755)
	if size > 0xffffffff {
		c.fail(fmt.Errorf("file %s has %d bytes, an initramfs holds 4 GiB", name, size))
	}
	c.header(name, modeFile|perm, 1, size, 0, 0)
	if c.err != nil {
		return
	}
	n, err := io.CopyN(c.w, r, size)
	c.n += n
	if err != nil {
		c.fail(fmt.Errorf("file %s: %d of %d bytes: %w", name, n, size, err))
	}
	c.pad(4)
}

// Char adds a character device.
func (c *CPIO) Char(name string, perm, major, minor uint32) {
	name = clean(name)
	c.Dir(path.Dir(name), 0o755)
	c.header(name, modeChar|perm, 1, 0, major, minor)
}

// Symlink adds a symbolic link.
func (c *CPIO) Symlink(name, target string) {
	name = clean(name)
	c.Dir(path.Dir(name), 0o755)
	c.header(name, modeLink|0o777, 1, int64(len(target)), 0, 0)
	c.write([]byte(target))
	c.pad(4)
}

// Close writes the trailer and pads the archive, so that another may follow.
func (c *CPIO) Close() error {
	c.ino = 0
	c.header("TRAILER!!!", 0, 1, 0, 0, 0)
	c.pad(alignment)
	if c.err != nil {
		return fmt.Errorf("cannot write initramfs: %w", c.err)
	}
	return nil
}

func (c *CPIO) header(name string, mode, nlink uint32, size int64, major, minor uint32) {
	var ino uint32
	if mode != 0 {
		c.ino++
		ino = c.ino
	}
	c.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		ino, mode, 0, 0, nlink, 0, size, 0, 0, major, minor, len(name)+1, 0, name))
	c.pad(4)
}

func (c *CPIO) pad(to int64) {
	if rest := c.n % to; rest != 0 {
		c.write(make([]byte, to-rest))
	}
}

func (c *CPIO) write(b []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	c.fail(err)
}

func (c *CPIO) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// clean gives name as an archive has it: relative, without dots. The root is "".
func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

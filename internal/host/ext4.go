package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
)

// MinExt4 is the smallest file system that MakeExt4 makes; below it there is no
// room for a journal.
const MinExt4 = 16 << 20

// sector is what the size of a disk is a multiple of; sizes are rounded up.
const sector = 4096

// MakeExt4 makes a sparse file with an empty ext4 whose root folder belongs to
// root. Nothing is written but the few blocks that describe it, the rest is
// initialised by the kernel that mounts it. No space is reserved for root, for in
// a machine everything is root's. The file must not exist; on an error it does not.
func (h *Real) MakeExt4(ctx context.Context, path string, size int64) (err error) {
	fail := func(err error) error {
		return api.Errorf(api.KindOf(classify(err)), "cannot make disk %s of %d bytes: %w", path, size, err).WithHint("%s", hintFor(err, path))
	}
	if size < MinExt4 {
		return api.Errorf(api.KindInvalid, "cannot make disk %s of %d bytes: at least %d are needed", path, size, MinExt4)
	}
	tool, err := h.Find("mke2fs")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	err = f.Truncate(roundUp(size))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fail(err)
	}
	err = h.run(ctx, tool, "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0",
		"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", path)
	if err != nil {
		return fail(err)
	}
	return nil
}

// GrowExt4 enlarges the file and the ext4 of a disk that no machine uses. It is
// safe to run again after it was cut off, and does nothing when the disk is that
// large already. A smaller size is refused.
func (h *Real) GrowExt4(ctx context.Context, path string, size int64) error {
	fail := func(err error) error {
		return api.Errorf(api.KindOf(classify(err)), "cannot grow disk %s to %d bytes: %w", path, size, err).WithHint("%s", hintFor(err, path))
	}
	fi, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	size = roundUp(size)
	if fi.Size() > size {
		return api.Errorf(api.KindInvalid, "cannot shrink disk %s from %d to %d bytes: only growing is safe", path, fi.Size(), size)
	}
	check, err := h.Find("e2fsck")
	if err != nil {
		return err
	}
	resize, err := h.Find("resize2fs")
	if err != nil {
		return err
	}
	// resize2fs insists on a check since the last mount, which also replays the
	// journal of a disk that was not unmounted. It comes before the file grows,
	// so that a disk beyond repair stays as it was.
	if err := h.run(ctx, check, "-f", "-p", path); err != nil {
		return fail(err)
	}
	if fi.Size() < size {
		if err := os.Truncate(path, size); err != nil {
			return fail(err)
		}
	}
	if err := h.run(ctx, resize, path); err != nil {
		return fail(err)
	}
	return nil
}

// OwnExt4 makes a writable file system of an image's: fitted to its disk, which
// may be larger, with a journal, and no longer flagged read-only. The disk, a file
// or a block device, is its caller's alone. It may be run again after it was cut
// off, and does nothing when all is as it should be.
func (h *Real) OwnExt4(ctx context.Context, path string, size int64) error {
	fail := func(err error) error {
		return api.Errorf(api.KindOf(classify(err)), "cannot make %s a disk of its own: %w", path, err).WithHint("%s", hintFor(err, path))
	}
	var tools [3]string
	for i, name := range []string{"tune2fs", "e2fsck", "resize2fs"} {
		var err error
		if tools[i], err = h.Find(name); err != nil {
			return err
		}
	}
	tune, check, resize := tools[0], tools[1], tools[2]
	s, err := readSuper(path)
	if err != nil {
		return err
	}
	if s.size == 0 {
		return fail(api.Errorf(api.KindInvalid, "there is no ext4 on it"))
	}
	if s.journal && !s.readOnly && s.size+unfit > size {
		return nil
	}
	var commands [][]string
	if s.readOnly {
		commands = append(commands, []string{tune, "-O", "^read-only", path})
	}
	commands = append(commands, []string{check, "-f", "-p", path}, []string{resize, path})
	if !s.journal {
		commands = append(commands, []string{tune, "-J", fmt.Sprintf("size=%d", journalMiB(size)), path})
	}
	for _, c := range commands {
		if err := h.run(ctx, c[0], c[1:]...); err != nil {
			return fail(err)
		}
	}
	return nil
}

// unfit is what may be left over at the end of a disk: too little for a group of
// blocks with its tables.
const unfit = 16 << 20

// journalMiB is the size of the journal of a disk of so many bytes.
func journalMiB(size int64) int {
	switch {
	case size < 512<<20:
		return 4
	case size < 2<<30:
		return 16
	}
	return 64
}

// Ext4Size is how many bytes of the disk its ext4 spans, by the superblock; 0
// when there is none on it.
func (h *Real) Ext4Size(path string) (int64, error) {
	s, err := readSuper(path)
	return s.size, err
}

// super is what is read of an ext4's superblock.
type super struct {
	size     int64 // of the file system in bytes; 0 where there is none
	journal  bool
	readOnly bool // flagged so: a kernel mounts it for reading only
}

func readSuper(path string) (super, error) {
	fail := func(err error) error {
		return api.Errorf(api.KindOf(classify(err)), "cannot read disk %s: %w", path, err).WithHint("%s", hintFor(err, path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return super{}, fail(err)
	}
	defer f.Close()
	// fs/ext4/ext4.h of Linux: struct ext4_super_block, at byte 1024 of the disk.
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 1024); err == io.EOF {
		return super{}, nil
	} else if err != nil {
		return super{}, fail(err)
	}
	le := binary.LittleEndian
	const magic, compatJournal, incompat64, compatReadOnly = 0xef53, 0x4, 0x80, 0x1000
	if le.Uint16(b[0x38:]) != magic {
		return super{}, nil
	}
	blocks := uint64(le.Uint32(b[0x4:]))
	if le.Uint32(b[0x60:])&incompat64 != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	log := le.Uint32(b[0x18:])
	if log > 6 || blocks > 1<<47>>(10+log) {
		return super{}, nil // no file system that Linux would mount
	}
	return super{
		size:    int64(blocks << (10 + log)),
		journal: le.Uint32(b[0x5c:])&compatJournal != 0, readOnly: le.Uint32(b[0x64:])&compatReadOnly != 0,
	}, nil
}

func roundUp(size int64) int64 { return (size + sector - 1) / sector * sector }

// toolFailure is a tool that ended badly, with its last words.
type toolFailure struct {
	tool, said string
	err        error
}

func (e *toolFailure) Error() string {
	if e.said == "" {
		return fmt.Sprintf("%s: %v", e.tool, e.err)
	}
	return fmt.Sprintf("%s: %s (%v)", e.tool, e.said, e.err)
}

func (e *toolFailure) Unwrap() error { return e.err }

// run runs one of e2fsprogs. e2fsck's code 1 means that it repaired something,
// which is what it was asked for.
func (h *Real) run(ctx context.Context, tool string, args ...string) error {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = toolEnv(h.env)
	cmd.WaitDelay = 5 * time.Second
	// A group of its own: Ctrl-C at a daemon in the foreground must not cut it off.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if strings.HasSuffix(tool, "e2fsck") && errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	return &toolFailure{tool: tool, said: lastLine(out.String()), err: err}
}

// lastLine is the last line that says something.
func lastLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := len(lines) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(lines[i]); l != "" {
			return l[:min(len(l), 300)]
		}
	}
	return ""
}

// classify gives an error of this file its kind.
func classify(err error) error {
	var known *api.Error
	var tool *toolFailure
	kind := kindOf(err)
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.Canceled):
		kind = api.KindCancelled
	case errors.Is(err, context.DeadlineExceeded):
		kind = api.KindTimeout
	case errors.As(err, &tool) && strings.Contains(tool.said, "No space left"):
		kind = api.KindNoSpace
	case errors.Is(err, os.ErrExist):
		kind = api.KindExists
	}
	return api.Errorf(kind, "%w", err)
}

func hintFor(err error, path string) string {
	switch api.KindOf(classify(err)) {
	case api.KindNoSpace:
		return "df -h " + path
	case api.KindDenied, api.KindNotFound:
		return "ls -ld " + path
	}
	return "banger doctor"
}

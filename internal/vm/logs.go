package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// LogOptions choose what of a VM's log is wanted.
type LogOptions struct {
	// Follow goes on until the VM stops or ctx ends.
	Follow bool
	// Since leaves out what is known to be older; the console's lines carry
	// the kernel's clock only, so this counts from the last start.
	Since time.Time
	// Tail is how many lines to begin with; negative means all.
	Tail int
	// Console asks for the console; it is all there is until sessions come.
	Console bool
}

// followEvery is how often a followed log is looked at.
const followEvery = 200 * time.Millisecond

// Logs writes the VM's console, as the guest wrote it.
func (m *Manager) Logs(ctx context.Context, ref string, o LogOptions, w io.Writer) error {
	rec, err := m.find(ctx, ref)
	if err != nil {
		return err
	}
	path := m.d.Layout.VM(rec.ID).ConsoleLog()
	var past bytes.Buffer // bounded: the keeper rotates
	for _, p := range []string{path + ".1", path} {
		b, err := os.ReadFile(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return api.Errorf(diskKind(err), "cannot read the log of vm %q: %w", rec.Name, err)
		}
		past.Write(b)
	}
	// Followed from here: what was read above is not read again.
	follow := &follower{path: path, off: size(path)}
	if fi, err := os.Stat(path); err == nil {
		follow.last = fi
		follow.off = min(follow.off, int64(past.Len()))
	}
	var written time.Time
	if follow.last != nil {
		written = follow.last.ModTime()
	}
	text := tail(since(past.Bytes(), rec, o.Since, written), o.Tail)
	if _, err := w.Write(text); err != nil {
		return err
	}
	if !o.Follow {
		return nil
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		over := m.machine(rec.ID).current() == nil
		if err := follow.copy(w); err != nil {
			return err
		}
		if over {
			if s := m.status(m.latest(ctx, rec)); s != api.StatusStarting && s != api.StatusCreating {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// latest is the record as it is now, or the one at hand when it cannot be read.
func (m *Manager) latest(ctx context.Context, rec store.VM) store.VM {
	if now, err := m.d.Store.VM(ctx, rec.ID); err == nil {
		return now
	}
	return rec
}

// follower reads what is appended to a file that is rotated by renaming.
type follower struct {
	path string
	last os.FileInfo
	off  int64
}

func (f *follower) copy(w io.Writer) error {
	file, err := os.Open(f.path)
	if err != nil {
		return nil // not there yet, or just being rotated
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return nil
	}
	if f.last != nil && !os.SameFile(f.last, fi) {
		if old, err := os.Open(f.path + ".1"); err == nil { // the rest of the old one
			if ofi, err := old.Stat(); err == nil && os.SameFile(f.last, ofi) {
				_, err = copyFrom(w, old, f.off)
				_ = old.Close()
				if err != nil {
					return err
				}
			} else {
				_ = old.Close()
			}
		}
		f.off = 0
	}
	if fi.Size() < f.off {
		f.off = 0
	}
	f.last = fi
	n, err := copyFrom(w, file, f.off)
	f.off += n
	return err
}

func copyFrom(w io.Writer, f *os.File, off int64) (int64, error) {
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(w, f)
}

// tail is the last n lines.
func tail(b []byte, n int) []byte {
	if n < 0 {
		return b
	}
	end := len(b)
	if end > 0 && b[end-1] == '\n' {
		end--
	}
	for i := end; i > 0; i-- {
		if b[i-1] == '\n' {
			if n--; n == 0 {
				return b[i:]
			}
		}
	}
	if n <= 0 {
		return nil
	}
	return b
}

// since leaves out lines before the time. A line without the kernel's clock is
// as old as the one before it, but those at the end may be as new as the file,
// last written then. A clock that goes back is another boot, and only the last is
// known to have begun at StartedAt.
func since(b []byte, rec store.VM, t, written time.Time) []byte {
	if t.IsZero() || rec.StartedAt == nil || !t.After(*rec.StartedAt) {
		if rec.StartedAt != nil && !t.IsZero() {
			return b[lastBoot(b):]
		}
		return b
	}
	want := t.Sub(*rec.StartedAt).Seconds()
	b = b[lastBoot(b):]
	off, dated := 0, 0
	for sc := lines(b); ; {
		line, ok := sc()
		if !ok {
			break
		}
		at, ok := kernelClock(line)
		if ok && at >= want {
			return b[off:]
		}
		off += len(line)
		if ok {
			dated = off
		}
	}
	if written.Before(t) {
		return nil
	}
	return b[dated:]
}

// lastBoot is where the last boot's lines begin.
func lastBoot(b []byte) int {
	begin, off, before := 0, 0, 0.0
	for next := lines(b); ; {
		line, ok := next()
		if !ok {
			return begin
		}
		if at, ok := kernelClock(line); ok {
			if at < before {
				begin = off
			}
			before = at
		}
		off += len(line)
	}
}

// lines yields line after line, each with its newline.
func lines(b []byte) func() ([]byte, bool) {
	return func() ([]byte, bool) {
		if len(b) == 0 {
			return nil, false
		}
		n, line, _ := bufio.ScanLines(b, true)
		_ = line
		if n == 0 {
			n = len(b)
		}
		out := b[:n]
		b = b[n:]
		return out, true
	}
}

// kernelClock reads the "[    1.234567]" a line of the kernel begins with.
func kernelClock(line []byte) (float64, bool) {
	if len(line) < 3 || line[0] != '[' {
		return 0, false
	}
	i := bytes.IndexByte(line, ']')
	if i < 0 || i > 24 {
		return 0, false
	}
	at, err := strconv.ParseFloat(strings.TrimSpace(string(line[1:i])), 64)
	return at, err == nil && at >= 0
}

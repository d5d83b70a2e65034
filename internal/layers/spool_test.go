package layers

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/host/hosttest"
)

func noise(seed uint64, size int) string {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return string(b)
}

// gated are layers that come one after the other, the first last: when the others
// have been read, or can be read no further.
func gated(t *testing.T, members ...[]m) []Layer {
	t.Helper()
	ls := stack(t, members...)
	var read atomic.Int64
	ended := make([]chan struct{}, len(ls))
	for i := range ls {
		ended[i] = make(chan struct{})
		open, end := ls[i].Open, sync.OnceFunc(func() { close(ended[i]) })
		ls[i].Open = func() (io.ReadCloser, error) {
			if i > 1 {
				<-ended[i-1]
			}
			for last := int64(-1); i == 0 && read.Load() != last; {
				last = read.Load()
				select {
				case <-ended[len(ls)-1]:
				case <-time.After(time.Second):
				}
			}
			rc, err := open()
			return io.NopCloser(counted{rc, &read, end}), err
		}
	}
	return ls
}

// counted tells how much of layers was read, and when one came to its end.
type counted struct {
	io.Reader
	n     *atomic.Int64
	ended func()
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	if errors.Is(err, io.EOF) {
		c.ended()
	}
	return n, err
}

// Layers that are unpacked before their turn wait on the disk, which changes
// nothing of what is made and leaves nothing there.
func TestLayersWaitOnTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 40 << 20
	members := [][]m{{file("first", "1")}, {file("a", noise(0, size)), file("first", "2")}, {file("b", noise(1, size)), file("first", "3")}}
	stats, err := Write(t.Context(), filepath.Join(dir, "a"), ext4.UUID("x"), gated(t, members...), Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Some of them waits in memory, and some is still on its way when its turn comes.
	if in := int64((keptCount + chunkCount) * chunkSize); stats.Spooled < 2*size-in || stats.Spooled > 2*size+1<<20 {
		t.Errorf("%d bytes were on the disk, of %d, with at most %d in memory", stats.Spooled, 2*size, in)
	}
	plain, err := build(t.Context(), filepath.Join(dir, "b"), ext4.UUID("x"), stack(t, members...), Limits{}, "", nil)
	if err != nil || plain.Spooled != 0 {
		t.Fatalf("%d bytes without a folder: %v", plain.Spooled, err)
	}
	a, aerr := os.ReadFile(filepath.Join(dir, "a"))
	b, berr := os.ReadFile(filepath.Join(dir, "b"))
	if aerr != nil || berr != nil || !bytes.Equal(a, b) {
		t.Errorf("the file systems differ, of %d and %d bytes: %v, %v", len(a), len(b), aerr, berr)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// What waits takes no more than its share of a disk, and the room of what was
// taken is there for others.
func TestTheSpoolTakesItsShare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hosttest.Ext4(t, dir, 24<<20)
	s := &spool{dir: dir}
	defer s.close()
	chunk := []byte(strings.Repeat("c", 1<<20))
	var at []int64
	for {
		where, ok := s.put(chunk)
		if !ok {
			break
		}
		at = append(at, where)
	}
	if len(at) < 3 || len(at) > 6 {
		t.Fatalf("it took %d MiB of 24", len(at))
	}
	got := make([]byte, len(chunk))
	for range 8 { // twice the share, and more
		if err := s.take(got, at[0]); err != nil || !bytes.Equal(got, chunk) {
			t.Fatalf("it gives something else: %v", err)
		}
		where, ok := s.put(chunk)
		if !ok {
			t.Fatal("what was taken makes no room")
		}
		at = append(at[1:], where)
	}
	hosttest.Fill(t, dir)
	if _, ok := s.put(chunk); ok {
		t.Error("it took more than there was")
	}
	if err := s.take(got, at[0]); err != nil || !bytes.Equal(got, chunk) {
		t.Errorf("after that it gives something else: %v", err)
	}
}

// An image for which the disk has room is made, also where there is none for what
// waits beside it: zeros take room there, and none in the image.
func TestAFullDiskWithoutTheSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hosttest.Ext4(t, dir, 64<<20)
	ls := gated(t, []m{file("first", "1")}, []m{file("noise", noise(1, 14<<20))}, []m{file("zeros", string(make([]byte, 100<<20)))})
	tries := 0
	open := ls[0].Open
	ls[0].Open = func() (io.ReadCloser, error) {
		rc, err := open()
		if tries++; tries == 1 { // the spool has its share
			leave(t, dir, 6<<20)
		}
		return rc, err
	}
	path := filepath.Join(dir, "fs.ext4")
	stats, err := Write(t.Context(), path, ext4.UUID("x"), ls, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if tries != 2 || stats.Spooled != 0 {
		t.Errorf("made in %d tries, with %d bytes beside it", tries, stats.Spooled)
	}
	fsck(t, path)
}

// leave takes all but some of the room that there is on the disk of a folder.
func leave(t *testing.T, dir string, bytes int64) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Error(err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bfree)*fs.Bsize-bytes); err != nil {
		t.Error(err)
	}
}

// Where the spool takes nothing, no more is unpacked than fits into memory, in
// however many layers.
func TestLayersAreNotUnpackedIntoMemory(t *testing.T) {
	t.Parallel()
	var opened atomic.Int64
	stalled := stack(t, []m{file("first", "1")})[0]
	inner := stalled.Open
	stalled.Open = func() (io.ReadCloser, error) {
		for last := int64(-1); opened.Load() != last; time.Sleep(300 * time.Millisecond) {
			last = opened.Load()
		}
		if n := opened.Load(); n > ahead+2 {
			t.Errorf("%d layers were unpacked before their turn", n)
		}
		return inner()
	}
	next := stack(t, []m{file("next", string(make([]byte, 18<<20)))})[0]
	open := next.Open
	next.Open = func() (io.ReadCloser, error) {
		opened.Add(1)
		return open()
	}
	ls := []Layer{stalled}
	for range 10 {
		ls = append(ls, next)
	}
	if _, err := build(t.Context(), filepath.Join(t.TempDir(), "x"), ext4.UUID("x"), ls, Limits{}, "", nil); err != nil {
		t.Fatal(err)
	}
	if n := opened.Load(); n != 10 {
		t.Errorf("%d layers were opened", n)
	}
}

// A layer whose digest the source checks, and whose diff id was checked before,
// is not hashed again.
func TestAKnownDiffIDIsNotComputed(t *testing.T) {
	t.Parallel()
	l := stack(t, []m{file("a", noise(1, 3<<20))})[0]
	l.DiffID = "sha256:" + strings.Repeat("0", 64)
	if _, err := write(t, []Layer{l}, Limits{}); err == nil || !strings.Contains(err.Error(), "its uncompressed content is") {
		t.Errorf("unknown: %v", err)
	}
	l.Known = true
	stats, err := Write(t.Context(), filepath.Join(t.TempDir(), "x"), ext4.UUID("x"), []Layer{l}, Limits{}, nil)
	if err != nil || stats.Hash != 0 {
		t.Errorf("known: %s of hashing: %v", stats.Hash, err)
	}
}

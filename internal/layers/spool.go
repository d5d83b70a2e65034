package layers

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spoolShare of what the disk has free may be in a spool at a time.
const spoolShare = 4

// spool keeps on the disk what was unpacked before its turn. It is best effort:
// once a write failed, or its share is used up, it takes nothing, and who unpacks
// waits. For several goroutines.
type spool struct {
	dir string // "" for none

	mu    sync.Mutex
	file  *os.File // without a name, made when first needed
	room  int64    // bytes that it may take yet
	next  int64    // where the next piece goes
	ended bool
}

// put keeps b, and says where; false when there is no room.
func (s *spool) put(b []byte) (at int64, ok bool) {
	file, at := s.reserve(int64(len(b)))
	if file == nil {
		return 0, false
	}
	if _, err := file.WriteAt(b, at); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
		return 0, false
	}
	return at, true
}

func (s *spool) reserve(n int64) (*os.File, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil && !s.ended {
		s.open()
	}
	if s.ended || s.room < n {
		return nil, 0
	}
	at := s.next
	s.next += n
	s.room -= n
	return s.file, at
}

// open makes the file; mu is held.
func (s *spool) open() {
	s.ended = true
	if s.dir == "" {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return
	}
	file, err := os.CreateTemp(s.dir, ".layers-")
	if err != nil {
		return
	}
	// Nobody is to find it, also if we are killed.
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return
	}
	s.file, s.room, s.ended = file, int64(fs.Bavail)*fs.Bsize/spoolShare, false
}

// take reads what was put at, and gives its room on the disk back.
func (s *spool) take(b []byte, at int64) error {
	if _, err := s.file.ReadAt(b, at); err != nil {
		return err
	}
	if err := unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, int64(len(b))); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.room += int64(len(b))
	}
	return nil
}

// used says how many bytes were kept, all in all.
func (s *spool) used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

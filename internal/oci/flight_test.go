package oci

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scripted is a source that does what a test says.
type scripted struct {
	host  string
	get   func() (io.ReadCloser, error)
	after func() // called once it failed, before the flight hears of it
	fatal bool
}

func (s *scripted) name() string { return s.host }

func (s *scripted) open(context.Context, blob, int64) (io.ReadCloser, int64, error) {
	body, err := s.get()
	return body, 0, err
}

func (s *scripted) explain(_ blob, err error) (error, bool) {
	if s.after != nil {
		s.after()
	}
	return err, s.fatal
}

func failing(host string, fatal bool) *scripted {
	return &scripted{host: host, fatal: fatal, get: func() (io.ReadCloser, error) { return nil, errors.New(host + " has it not") }}
}

func giving(host, text string) *scripted {
	return &scripted{host: host, get: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
}

// shortly is patience for tests.
func shortly() patience {
	return patience{stall: time.Minute, backoff: func(int) time.Duration { return 0 }, tries: 2}
}

// Whoever comes when the last source has been dropped does not get the error of
// those who had nothing else: there is no joining what has failed.
func TestNobodyJoinsADownloadThatHasFailed(t *testing.T) {
	t.Parallel()
	told := func(int64) {}
	bl := blob{digest: digestOf([]byte("content")), size: 7, what: "layer"}
	for name, end := range map[string]func(f *flight, s source) bool{
		"its last source is dropped": func(f *flight, s source) bool { return f.drop(s) },
		"patience is over":           func(f *flight, s source) bool { return !f.giveUp(map[string]bool{s.name(): true}) },
	} {
		b := OpenBlobs(t.TempDir())
		bad := failing("bad", true)
		f := newFlight(b, bl, []source{bad}, shortly())
		if !f.join(&waiter{told}, bl, nil) {
			t.Fatal("the first cannot join")
		}
		if end(f, bad) {
			t.Errorf("%s: it goes on", name)
		}
		if f.join(&waiter{told}, bl, []source{giving("good", "content")}) {
			t.Errorf("%s: another joined", name)
		}
	}
}

// A source that another brings while the first fails is tried before anybody is
// told of a failure.
func TestASourceThatCameLateIsTried(t *testing.T) {
	t.Parallel()
	content := "content"
	bl := blob{digest: digestOf([]byte(content)), size: int64(len(content)), what: "layer"}
	for name, fatal := range map[string]bool{"a source that will never": true, "a source that may": false} {
		b := OpenBlobs(t.TempDir())
		bad := failing("bad", fatal)
		come, second, times := make(chan struct{}), make(chan error, 1), 0
		bad.after = func() {
			if times++; times < shortly().tries && !fatal {
				return
			}
			if times > shortly().tries {
				return
			}
			go func() {
				second <- b.get(context.Background(), bl, []source{giving("good", content)}, shortly(), func(int64) {})
			}()
			for joined := false; !joined; time.Sleep(time.Millisecond) {
				b.mu.Lock()
				f := b.flights[bl.digest]
				b.mu.Unlock()
				f.mu.Lock()
				joined = len(f.waiters) == 2
				f.mu.Unlock()
			}
			close(come)
		}
		first := b.get(context.Background(), bl, []source{bad}, shortly(), func(int64) {})
		<-come
		if err := <-second; err != nil || first != nil {
			t.Errorf("%s: %v, %v", name, first, err)
		}
	}
}

// What is left of an earlier download may be large: reading it for its digest
// ends with who waits.
func TestReadingAPartEndsWithTheContext(t *testing.T) {
	t.Parallel()
	b := OpenBlobs(t.TempDir())
	bl := blob{digest: digestOf([]byte("x")), size: 1 << 20, what: "layer"}
	path := b.partial(bl.digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFlight(b, bl, []source{failing("bad", true)}, shortly())
	mine := errors.New("nobody waits")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(mine)
	if _, err := f.openPartial(ctx); !errors.Is(err, mine) {
		t.Errorf("the part was read: %v", err)
	}
	if err := f.fly(ctx); !errors.Is(err, mine) {
		t.Errorf("got %v", err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != 1000 {
		t.Errorf("the part is not what it was: %v", err)
	}
}

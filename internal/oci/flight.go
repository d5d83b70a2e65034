package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// source is one place a blob can be had from.
type source interface {
	// open gives the blob from an offset on. A source that cannot begin there
	// begins elsewhere and says where.
	open(ctx context.Context, bl blob, offset int64) (body io.ReadCloser, at int64, err error)
	// name tells people and sources apart: the host and repository.
	name() string
	// explain turns an error of a download into one for people, which names the
	// host; fatal ones are not tried again.
	explain(bl blob, err error) (explained error, fatal bool)
}

// patience is how long and how often a download is tried.
type patience struct {
	stall   time.Duration                    // with no byte, a connection counts as stalled
	backoff func(failures int) time.Duration // the wait after so many failures in a row, from 1
	tries   int                              // failures in a row that are too many
	note    func(bl blob, from string, err error)
}

// eager is the share of patience.stall that a source gets while others wait
// behind it untried.
const eager = 10

// enough is how many bytes of progress make a failure the first in a row again:
// a source that gives a byte a try must not be tried for ever.
const enough = 64 << 10

// corruptions is how often a blob may come whole and wrong.
const corruptions = 2

// waiter is one who wants the blob.
type waiter struct{ told func(have int64) }

// flight is one blob's download. It goes on through broken and stalled
// connections, from source to source, where the last one left off. It ends when
// the blob is here, nobody waits any more, or no source is left.
type flight struct {
	blobs *Blobs
	blob  blob
	how   patience
	done  chan struct{} // closed at the end
	err   error         // valid after done

	mu      sync.Mutex
	waiters map[*waiter]bool
	sources []source
	alive   func(next time.Duration) // of the connection that is open; nil when none is
	stall   time.Duration            // how long it may give nothing
	cancel  context.CancelFunc
	ended   bool
	have    int64
}

func newFlight(b *Blobs, bl blob, sources []source, how patience) *flight {
	return &flight{blobs: b, blob: bl, how: how, done: make(chan struct{}), waiters: map[*waiter]bool{}, sources: sources}
}

// join adds one who waits, with sources of its own. It fails when the flight has
// ended, or is for another size.
func (f *flight) join(w *waiter, bl blob, sources []source) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || bl.size != f.blob.size {
		return false
	}
	f.waiters[w] = true
	w.told(f.have)
next:
	for _, s := range sources {
		for _, known := range f.sources {
			if known.name() == s.name() {
				continue next
			}
		}
		f.sources = append(f.sources, s)
		if f.alive != nil { // there is another way now
			f.stall = f.how.stall / eager
			f.alive(f.stall)
		}
	}
	return true
}

// leave takes one off; the last one ends the flight, and is told so.
func (f *flight) leave(w *waiter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiters, w)
	if len(f.waiters) > 0 || f.ended {
		return false
	}
	f.ended = true // nobody joins what is being given up
	if f.cancel != nil {
		f.cancel()
	}
	return true
}

// run gets the blob. It owns the partial file while it runs.
func (f *flight) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.cancel = cancel
	if f.ended {
		cancel()
	}
	f.mu.Unlock()
	err := f.fly(ctx)
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.blobs.landed(f)
	f.err = err
	close(f.done)
}

// fly tries source after source.
func (f *flight) fly(ctx context.Context) error {
	p, err := f.openPartial(ctx)
	if ctx.Err() != nil {
		if err == nil {
			_ = p.file.Close()
		}
		return context.Cause(ctx)
	}
	if err != nil {
		return f.blobs.diskFailure(f.blob, f.blob.size, err)
	}
	defer func() { _ = p.file.Close() }()
	f.tell(p.have)
	failures, corrupt := 0, 0
	tried := map[string]bool{}
	for try := 0; ; try++ {
		src, alone := f.source(try, tried)
		tried[src.name()] = true
		before := p.have
		stall := f.how.stall
		if !alone && failures == 0 {
			stall /= eager
		}
		err := f.attempt(ctx, src, p, stall)
		if err == nil {
			return f.finish(p)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var disk *diskError
		if errors.As(err, &disk) {
			return f.blobs.diskFailure(f.blob, f.blob.size-p.have, disk.cause)
		}
		err, fatal := src.explain(f.blob, err)
		var wrong *mismatchError
		if errors.As(err, &wrong) {
			corrupt++
			fatal = corrupt >= corruptions
		}
		if f.how.note != nil {
			f.how.note(f.blob, src.name(), err)
		}
		if fatal {
			if !f.drop(src) {
				return err
			}
			continue
		}
		if p.have-before >= enough {
			failures = 0
		}
		if failures++; failures >= f.how.tries && f.giveUp(tried) {
			return err
		}
		select {
		case <-time.After(f.how.backoff(failures)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// source gives the one whose turn it is, untried ones first, and whether it is the
// only one.
func (f *flight) source(try int, tried map[string]bool) (source, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	turn := f.sources[try%len(f.sources)]
	if tried[turn.name()] {
		if fresh := f.fresh(tried); fresh != nil {
			turn = fresh
		}
	}
	return turn, len(f.sources) == 1
}

// fresh gives a source that was never tried; nil when there is none. mu is held.
func (f *flight) fresh(tried map[string]bool) source {
	for _, s := range f.sources {
		if !tried[s.name()] {
			return s
		}
	}
	return nil
}

// giveUp ends the flight, unless there is a source that was never tried. From
// then on nobody joins: who came too late begins anew instead of getting the
// error of others.
func (f *flight) giveUp(tried map[string]bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = f.ended || f.fresh(tried) == nil
	return f.ended
}

// drop forgets a source that will not give the blob; false when it was the last,
// which ends the flight: nobody joins it any more.
func (f *flight) drop(src source) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.sources {
		if s.name() == src.name() {
			f.sources = append(f.sources[:i:i], f.sources[i+1:]...)
			break
		}
	}
	f.ended = f.ended || len(f.sources) == 0
	return len(f.sources) > 0
}

// tell says to all who wait how much is here.
func (f *flight) tell(have int64) {
	f.mu.Lock()
	f.have = have
	told := make([]func(int64), 0, len(f.waiters))
	for w := range f.waiters {
		told = append(told, w.told)
	}
	f.mu.Unlock()
	for _, t := range told {
		t(have)
	}
}

// partial is what there is of a blob: the file, and the digest of its bytes.
type partial struct {
	file     *os.File
	have     int64
	digester digest.Digester
}

// diskError is an error of our own disk, not of a source.
type diskError struct{ cause error }

func (e *diskError) Error() string { return e.cause.Error() }

// openPartial opens what an earlier download left, and reads it for its digest,
// which may take long: it ends with the context.
func (f *flight) openPartial(ctx context.Context) (*partial, error) {
	path := f.blobs.partial(f.blob.digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("it is no file")}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &partial{file: file}
	p.digester = digest.Digest(f.blob.digest).Algorithm().Digester()
	if p.have, err = io.Copy(p.digester.Hash(), io.LimitReader(untilDone{ctx, file}, f.blob.size+1)); err == nil && p.have > f.blob.size {
		err = f.restart(p)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return p, nil
}

// untilDone is a reader that ends with its context.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.Reader.Read(p)
}

// restart forgets what is there.
func (f *flight) restart(p *partial) error {
	p.digester = digest.Digest(f.blob.digest).Algorithm().Digester()
	p.have = 0
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// attempt gets as much as one connection gives; nil when the blob is whole.
func (f *flight) attempt(ctx context.Context, src source, p *partial, stall time.Duration) error {
	if p.have < f.blob.size {
		if err := f.pull(ctx, src, p, stall); err != nil {
			return err
		}
	}
	if p.have < f.blob.size {
		return fmt.Errorf("the connection ended after %d of %d bytes: %w", p.have, f.blob.size, io.ErrUnexpectedEOF)
	}
	if got := p.digester.Digest().String(); got != f.blob.digest {
		wrong := &mismatchError{want: f.blob.digest, got: got, wantSize: f.blob.size, gotBytes: p.have}
		if err := f.restart(p); err != nil {
			return &diskError{err}
		}
		return wrong
	}
	return nil
}

func (f *flight) pull(ctx context.Context, src source, p *partial, stall time.Duration) error {
	ctx, alive, stop := watch(ctx, stall)
	defer stop()
	f.connected(alive, stall)
	defer f.connected(nil, 0)
	body, at, err := src.open(ctx, f.blob, p.have)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer func() { _ = body.Close() }()
	f.came()
	if at != p.have {
		had := p.have
		if err := f.restart(p); err != nil {
			return &diskError{err}
		}
		if at != 0 {
			return &answerError{fmt.Sprintf("asked for bytes from %d on it gave bytes from %d on", had, at)}
		}
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			f.came()
			if p.have+int64(n) > f.blob.size {
				if err := f.restart(p); err != nil {
					return &diskError{err}
				}
				return &mismatchError{want: f.blob.digest, wantSize: f.blob.size}
			}
			if _, err := p.file.Write(buf[:n]); err != nil {
				return &diskError{err}
			}
			_, _ = p.digester.Hash().Write(buf[:n])
			p.have += int64(n)
			f.tell(p.have)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return causeOf(ctx, err)
		}
	}
}

// connected says how the connection that is open is watched.
func (f *flight) connected(alive func(time.Duration), stall time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive, f.stall = alive, stall
}

// came says that something came through it.
func (f *flight) came() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive(f.stall)
}

// finish gives the blob its name.
func (f *flight) finish(p *partial) error {
	if err := os.Rename(p.file.Name(), f.blobs.path(f.blob.digest)); err != nil {
		return f.blobs.diskFailure(f.blob, 0, err)
	}
	return nil
}

// watch gives a context that ends when nothing came for stall; alive says that
// something did, and how long the next may take. stop is to be called at the end.
func watch(ctx context.Context, stall time.Duration) (watched context.Context, alive func(next time.Duration), stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	var limit atomic.Int64
	limit.Store(int64(stall))
	timer := time.AfterFunc(stall, func() { cancel(&stallError{after: time.Duration(limit.Load())}) })
	alive = func(next time.Duration) {
		limit.Store(int64(next))
		timer.Reset(next)
	}
	return watched, alive, func() { timer.Stop(); cancel(nil) }
}

// stallError is a connection on which nothing came.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string { return fmt.Sprintf("nothing came for %s", e.after) }

// causeOf is why a context ended, where that is why something failed.
func causeOf(ctx context.Context, err error) error {
	var stalled *stallError
	if errors.As(context.Cause(ctx), &stalled) {
		return stalled
	}
	return err
}

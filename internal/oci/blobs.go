package oci

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	units "github.com/docker/go-units"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
)

// Blobs is the cache of what registries gave, by digest: <algorithm>/<hex>,
// <hex>.partial for what broke off and can be gone on with, and <hex>.points for
// where the unpacking of a layer can begin. One process at a time may use a folder.
// Its methods may be called from several goroutines.
type Blobs struct {
	dir string

	mu      sync.Mutex
	pins    map[string]int     // digests that Prune must leave
	flights map[string]*flight // downloads under way
}

const partialSuffix = ".partial"

// OpenBlobs gives the cache in a folder, which need not exist.
func OpenBlobs(dir string) *Blobs {
	return &Blobs{dir: dir, pins: map[string]int{}, flights: map[string]*flight{}}
}

// path is where a blob is; its digest has been checked.
func (b *Blobs) path(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(b.dir, algorithm, hex)
}

func (b *Blobs) partial(digest string) string { return b.path(digest) + partialSuffix }

// BlobInfo is one blob of the cache.
type BlobInfo struct {
	Digest  string
	Size    int64 // bytes on the disk
	Partial bool  // not whole yet
}

// List gives what is in the cache, by digest.
func (b *Blobs) List() ([]BlobInfo, error) {
	algorithms, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.KindInternal, "cannot list the blob cache: %w", err)
	}
	var list []BlobInfo
	for _, algorithm := range algorithms {
		entries, err := os.ReadDir(filepath.Join(b.dir, algorithm.Name()))
		if err != nil {
			continue // no folder of ours
		}
		for _, e := range entries {
			hex, partial := strings.CutSuffix(e.Name(), partialSuffix)
			info, err := e.Info()
			digest := algorithm.Name() + ":" + hex
			if err != nil || !info.Mode().IsRegular() || checkDigest(digest) != nil {
				continue
			}
			size := info.Size()
			if fi, err := os.Lstat(b.pointsOf(digest)); err == nil && !partial {
				size += fi.Size()
			}
			list = append(list, BlobInfo{Digest: digest, Size: size, Partial: partial})
		}
	}
	slices.SortFunc(list, func(a, b BlobInfo) int { return strings.Compare(a.Digest, b.Digest) })
	return list, nil
}

// Prune deletes what is not kept, and gives what it deleted; dry only tells. What
// a fetch under way or an Image not yet closed needs stays.
func (b *Blobs) Prune(keep map[string]bool, dry bool) ([]BlobInfo, error) {
	list, err := b.List()
	if err != nil {
		return nil, err
	}
	var gone []BlobInfo
	var failed []error
	for _, info := range list {
		if deleted, err := b.pruneOne(info, keep[info.Digest], dry); err != nil {
			failed = append(failed, err)
		} else if deleted {
			gone = append(gone, info)
		}
	}
	if len(failed) > 0 {
		return gone, api.Errorf(api.KindInternal, "cannot prune the blob cache: %w", errors.Join(failed...))
	}
	return gone, nil
}

func (b *Blobs) pruneOne(info BlobInfo, keep, dry bool) (bool, error) {
	b.mu.Lock() // so that nobody pins it meanwhile
	defer b.mu.Unlock()
	if keep || b.pins[info.Digest] > 0 {
		return false, nil
	}
	if dry {
		return true, nil
	}
	path := b.path(info.Digest)
	if info.Partial {
		path = b.partial(info.Digest)
	} else {
		b.forget(info.Digest)
	}
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// pin keeps digests from Prune until the function it gives is called, once.
func (b *Blobs) pin(digests ...string) (unpin func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range digests {
		b.pins[d]++
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, d := range digests {
			if b.pins[d]--; b.pins[d] <= 0 {
				delete(b.pins, d)
			}
		}
	}
}

// blob is what a manifest says about a blob.
type blob struct {
	digest string
	size   int64
	what   string // layer, configuration: for messages
}

// has says whether the blob is here. A file of another size is none.
func (b *Blobs) has(bl blob) bool {
	fi, err := os.Lstat(b.path(bl.digest))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == bl.size
}

// missing is how many bytes of a blob are not here.
func (b *Blobs) missing(bl blob) int64 {
	if b.has(bl) {
		return 0
	}
	if fi, err := os.Lstat(b.partial(bl.digest)); err == nil && fi.Size() <= bl.size {
		return bl.size - fi.Size()
	}
	return bl.size
}

// checkSpace looks whether the missing ones of blobs, each counted once, fit.
func (b *Blobs) checkSpace(what string, blobs []blob) error {
	seen := map[string]bool{}
	var need int64
	for _, bl := range blobs {
		if seen[bl.digest] {
			continue
		}
		seen[bl.digest] = true
		if need += b.missing(bl); need < 0 { // declared sizes beyond any disk
			need = 1<<63 - 1
			break
		}
	}
	return debian.CheckSpace(what, debian.Need{Dir: b.dir, Bytes: need})
}

// open gives a blob that is here. One that has rotted on the disk is removed, so
// that the next fetch gets it anew.
func (b *Blobs) open(bl blob) (io.ReadCloser, error) {
	f, err := os.Open(b.path(bl.digest))
	if err != nil {
		return nil, b.notHere(bl, err)
	}
	return newVerifier(f, bl.digest, bl.size, f.Close, func(m *mismatchError) error {
		b.forget(bl.digest)
		_ = os.Remove(b.path(bl.digest))
		err := api.Errorf(api.KindUnavailable, "cannot read %s %s from the blob cache: it was damaged on the disk and is removed: %w", bl.what, bl.digest, m)
		err.Retryable = true
		return err
	}), nil
}

// notHere is the error for a blob that cannot be opened.
func (b *Blobs) notHere(bl blob, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.KindBadState, "cannot read %s %s: it is not in the blob cache any more", bl.what, bl.digest)
	}
	return api.Errorf(api.KindInternal, "cannot read %s %s from the blob cache: %w", bl.what, bl.digest, err)
}

// read gives all of a small blob.
func (b *Blobs) read(bl blob) ([]byte, error) {
	r, err := b.open(bl)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(io.LimitReader(r, maxManifest+1))
}

// get brings a blob into the cache, from the first of the sources that can give
// it. Those who want the same blob at once share one download, and their sources.
// told is called with how many of its bytes are here, from any goroutine.
func (b *Blobs) get(ctx context.Context, bl blob, sources []source, how patience, told func(have int64)) error {
	w := &waiter{told: told}
	for ctx.Err() == nil {
		if b.has(bl) {
			told(bl.size)
			return nil
		}
		f, joined := b.board(ctx, bl, sources, how, w)
		select {
		case <-f.done:
		case <-ctx.Done():
			if joined && f.leave(w) { // the last one: what is running is ours to wait for
				<-f.done
			}
			return context.Cause(ctx)
		}
		if joined {
			return f.err
		}
	}
	return context.Cause(ctx)
}

// board joins the flight of a blob, beginning one if there is none. One that has
// just ended, or is for another size, cannot be joined, only waited for: it owns
// the partial file.
func (b *Blobs) board(ctx context.Context, bl blob, sources []source, how patience, w *waiter) (*flight, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.flights[bl.digest]; f != nil {
		return f, f.join(w, bl, sources)
	}
	f := newFlight(b, bl, sources, how)
	f.join(w, bl, nil)
	b.flights[bl.digest] = f
	go f.run(context.WithoutCancel(ctx))
	return f, true
}

// landed takes a flight off the list.
func (b *Blobs) landed(f *flight) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flights[f.blob.digest] == f {
		delete(b.flights, f.blob.digest)
	}
}

// diskFailure gives an error about the cache's disk its kind.
func (b *Blobs) diskFailure(bl blob, need int64, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.Errorf(api.KindNoSpace, "cannot write %s %s to %s: %s more are needed: %w",
			bl.what, bl.digest, b.dir, units.BytesSize(float64(need)), err).WithHint("df -h %s", b.dir)
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.KindDenied, "cannot write %s %s to the blob cache: %w", bl.what, bl.digest, err)
	}
	return api.Errorf(api.KindInternal, "cannot write %s %s to the blob cache: %w", bl.what, bl.digest, err)
}

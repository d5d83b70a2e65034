package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bangervm/banger/internal/signature"
)

const (
	// oldAfter is how long a catalog is not asked whether it has a new name.
	oldAfter = time.Hour
	// restAfter is how long a catalog that could not be read is left alone.
	restAfter = 30 * time.Second
	// patience bounds the fetch of one catalog.
	patience = 30 * time.Second
)

// place is a configured catalog, as far as it is known.
type place struct {
	Place
	file  string // that keeps the last copy: of what has a URL, or a key
	fetch Fetcher
	now   func() time.Time
	log   *slog.Logger

	turn chan struct{} // holds one token: who takes it reads the place

	mu    sync.Mutex // guards what follows: for moments
	last  *copyOf
	err   error     // of the last reading
	tried time.Time // when that was
}

func newPlace(p Place, dir string, fetch Fetcher, now func() time.Time, log *slog.Logger) *place {
	key := p.At
	if p.Key != nil {
		key += "\n" + p.Key.String()
	}
	sum := sha256.Sum256([]byte(key))
	l := &place{
		Place: p, file: filepath.Join(dir, hex.EncodeToString(sum[:8])+".json"), fetch: fetch, now: now, log: log, turn: make(chan struct{}, 1),
	}
	l.turn <- struct{}{}
	return l
}

func (p *place) isURL() bool { return !filepath.IsAbs(p.At) }

// loaded says whether there is anything of the place.
func (p *place) loaded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last != nil
}

// wanted says whether the place was never read, nor tried a moment ago.
func (p *place) wanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last == nil && !p.resting()
}

// old says whether it is time to ask the place again.
func (p *place) old() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return (p.last == nil || p.now().Sub(p.last.FetchedAt) > oldAfter) && !p.resting()
}

// resting says whether the place failed a moment ago.
func (p *place) resting() bool { return p.err != nil && p.now().Sub(p.tried) < restAfter }

func (p *place) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *place) state() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Name: p.Name, At: redacted(p.At), Err: p.err}
	if p.Key != nil {
		s.Key = p.Key.ID()
	}
	if p.last != nil {
		s.FetchedAt, s.Entries = p.last.FetchedAt, len(p.last.catalog.Images)+len(p.last.catalog.Kernels)
	}
	return s
}

func (p *place) items(noun Noun) []Item {
	p.mu.Lock()
	last := p.last
	p.mu.Unlock()
	if last == nil {
		return nil
	}
	key := p.Key
	if last.catalog.PublicKey != "" {
		k, err := signature.ParseKey(last.catalog.PublicKey)
		if err != nil {
			return nil // Parse checked it
		}
		key = &k
	}
	list := items(p.Name, last.catalog, noun, key)
	for i := range list {
		list[i].Sources = slices.Clone(list[i].Sources)
		for j := range list[i].Sources {
			s := &list[i].Sources[j]
			s.Bundle, s.File = p.whole(s.Bundle), p.whole(s.File)
		}
	}
	return list
}

func items(catalog string, c Catalog, noun Noun, key *signature.Key) []Item {
	entries := c.list(noun)
	list := make([]Item, len(entries))
	for i, e := range entries {
		list[i] = Item{Entry: e, Catalog: catalog, Key: key}
	}
	return list
}

// whole is a download with its URL made whole.
func (p *place) whole(d *Download) *Download {
	if d == nil {
		return nil
	}
	w := *d
	if at, err := p.resolve(d.URL); err == nil {
		w.URL = at
	}
	return &w
}

// resolve makes a URL of the catalog whole: one beside a catalog that is a file
// becomes a path.
func (p *place) resolve(ref string) (string, error) {
	u, err := url.Parse(ref)
	if err != nil {
		return "", err
	}
	if p.isURL() {
		base, err := url.Parse(p.At)
		if err != nil {
			return "", err
		}
		u = base.ResolveReference(u)
		if u.Scheme != "https" && u.Scheme != "http" {
			return "", errors.New("a catalog from the network names files of the network only")
		}
		if u.Host == base.Host && u.User == nil {
			u.User = base.User
		}
		return u.String(), nil
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http":
		return ref, nil
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
		return u.Path, nil
	case u.Scheme == "" && u.Host == "" && u.Path != "":
		if filepath.IsAbs(u.Path) {
			return u.Path, nil
		}
		return filepath.Join(filepath.Dir(p.At), filepath.FromSlash(u.Path)), nil
	}
	return "", errors.New("it is neither a path nor an address")
}

// load reads the place, unless another does, for which it waits. What it was is
// kept where that fails. The copy of the last time will do, but for anew.
func (p *place) load(ctx context.Context, anew bool) {
	begun := p.now()
	select {
	case <-p.turn:
	case <-ctx.Done():
		return
	}
	defer func() { p.turn <- struct{}{} }()
	p.mu.Lock()
	last, since := p.last, p.tried
	p.mu.Unlock()
	if since.After(begun) {
		return // another did while we waited
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var next *copyOf
	var err error
	if last == nil && (p.isURL() || p.Key != nil) {
		if last, err = p.readKept(); err != nil && !errors.Is(err, os.ErrNotExist) {
			p.log.WarnContext(ctx, "kept copy of a catalog is of no use", "catalog", p.Name, "file", p.file, "error", err)
		}
		if last != nil && p.isURL() {
			p.mu.Lock()
			p.last = last
			p.mu.Unlock()
			if !anew {
				return
			}
		}
	}
	if p.isURL() {
		next, err = p.fetchCopy(ctx, last)
	} else {
		next, err = p.readFile(ctx, last)
	}
	if err != nil && ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return // who asked went away; that says nothing about the place
	}
	if err != nil {
		p.log.WarnContext(ctx, "cannot read a catalog", "catalog", p.Name, "at", redacted(p.At), "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried, p.err = p.now(), err
	if err == nil {
		p.last = next
	}
}

// signatureOf is where the signature of what is at a URL lies.
func signatureOf(at string) (string, error) {
	u, err := url.Parse(at)
	if err != nil {
		return "", err
	}
	u.Path, u.RawPath = u.Path+signature.Suffix, ""
	return u.String(), nil
}

// redacted is a location without the password in it.
func redacted(at string) string {
	if u, err := url.Parse(at); err == nil && strings.Contains(at, "@") {
		return u.Redacted()
	}
	return at
}

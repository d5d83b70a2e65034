package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/signature"
)

// copyOf is a catalog as it was read, with what it was read from.
type copyOf struct {
	Location  string    `json:"location"`
	FetchedAt time.Time `json:"fetched_at"`
	Tag       string    `json:"tag,omitempty"`
	Body      []byte    `json:"body"`
	Signature []byte    `json:"signature,omitempty"`

	catalog  Catalog
	signedAt time.Time // zero where the signature does not say
}

// readFile reads a catalog that is a file. One that must be signed is kept too,
// to know an older one by.
func (p *place) readFile(ctx context.Context, last *copyOf) (*copyOf, error) {
	c := &copyOf{Location: p.At, FetchedAt: p.now()}
	var err error
	if c.Body, err = readBounded(p.At, MaxBytes); err != nil {
		return nil, api.Errorf(api.KindUnavailable, "cannot read %s: %w", p.At, err)
	}
	if p.Key != nil {
		c.Signature, err = readBounded(p.At+signature.Suffix, signature.MaxBytes)
		if errors.Is(err, os.ErrNotExist) {
			return nil, signature.Unsigned(p.At, *p.Key)
		}
		if err != nil {
			return nil, api.Errorf(api.KindUnavailable, "cannot read %s%s: %w", p.At, signature.Suffix, err)
		}
	}
	if err := p.check(c, last); err != nil {
		return nil, err
	}
	if p.Key != nil && (last == nil || !bytes.Equal(c.Signature, last.Signature)) {
		p.keepFor(ctx, c)
	}
	return c, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return b, err
}

// fetchCopy asks the place for its catalog, and gives what is there already when
// it is still the same.
func (p *place) fetchCopy(ctx context.Context, last *copyOf) (*copyOf, error) {
	tag := ""
	if last != nil {
		tag = last.Tag
	}
	body, tag, err := p.fetch.Bytes(ctx, p.At, tag, MaxBytes)
	if err != nil {
		return nil, err
	}
	c := &copyOf{Location: p.At, FetchedAt: p.now().UTC(), Tag: tag, Body: body}
	switch {
	case body == nil && last == nil:
		return nil, api.Errorf(api.KindUnavailable, "cannot read %s: it answered with nothing", redacted(p.At))
	case body == nil:
		c.Body, c.Signature, c.catalog, c.signedAt = last.Body, last.Signature, last.catalog, last.signedAt
	default:
		if p.Key != nil {
			at, err := signatureOf(p.At)
			if err != nil {
				return nil, err
			}
			c.Signature, _, err = p.fetch.Bytes(ctx, at, "", signature.MaxBytes)
			if api.KindOf(err) == api.KindNotFound {
				return nil, signature.Unsigned(redacted(p.At), *p.Key)
			}
			if err != nil {
				return nil, err
			}
		}
		if err := p.check(c, last); err != nil {
			return nil, err
		}
	}
	p.keepFor(ctx, c)
	return c, nil
}

// keepFor keeps a copy for later; without it there is less to know later.
func (p *place) keepFor(ctx context.Context, c *copyOf) {
	if err := p.keep(c); err != nil {
		p.log.WarnContext(ctx, "cannot keep a catalog for later", "catalog", p.Name, "error", err)
	}
}

// check verifies and parses a copy, which must not have been signed before last.
func (p *place) check(c, last *copyOf) error {
	what := redacted(p.At)
	if p.Key != nil {
		if err := signature.Verify(what, bytes.NewReader(c.Body), c.Signature, *p.Key); err != nil {
			return err
		}
		c.signedAt = signature.SignedAt(c.Signature)
		if last != nil && c.signedAt.Before(last.signedAt) {
			return older(what, c.signedAt, last.signedAt)
		}
	}
	var err error
	if c.catalog, err = Parse(c.Body); err == nil {
		err = p.checkURLs(c.catalog)
	}
	if err != nil {
		return api.Errorf(api.KindInvalid, "cannot read %s: %w", what, err)
	}
	return nil
}

// older is the error for a catalog that was signed before one seen already: good
// once, it may offer what has since been found bad.
func older(what string, signed, seen time.Time) error {
	was := "its signature does not say when it was made"
	if !signed.IsZero() {
		was = "it was signed at " + signed.Format(time.RFC3339)
	}
	return api.Errorf(api.KindDenied, "cannot trust %s: %s, and one signed at %s has been seen; to go back, it must be signed anew", what, was, seen.Format(time.RFC3339))
}

func (p *place) checkURLs(c Catalog) error {
	for _, e := range slices.Concat(c.Images, c.Kernels) {
		for _, s := range e.Sources {
			for _, d := range []*Download{s.Bundle, s.File} {
				if d == nil {
					continue
				}
				if _, err := p.resolve(d.URL); err != nil {
					return fmt.Errorf("%s: url %.80q: %w", e.Name, d.URL, err)
				}
			}
		}
	}
	return nil
}

// readKept reads the copy of the last time, trusting it no more than the place.
func (p *place) readKept() (*copyOf, error) {
	b, err := readBounded(p.file, 2*MaxBytes)
	if err != nil {
		return nil, err
	}
	var c copyOf
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	if c.Location != p.At || c.FetchedAt.After(p.now()) {
		return nil, errors.New("it is of another place or time")
	}
	if err := p.check(&c, nil); err != nil {
		return nil, err
	}
	return &c, nil
}

func (p *place) keep(c *copyOf) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(p.file, b, 0o600)
}

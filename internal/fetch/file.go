package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
)

// maxAttempts bounds the attempts at one file, also where each brings something.
const maxAttempts = 100

// File gets a file of at most limit bytes into a new file at path. A download
// that breaks goes on where it broke, if the server says that the file is the
// same, else from the beginning; it is given up when several attempts in a row
// bring nothing. report, which may be nil, is told of bytes; total is 0 where
// the server does not say. On an error nothing is left.
//
// Errors: not-found, denied, invalid (an address not to be had, too large),
// unavailable, no-space, cancelled.
func (c *Client) File(ctx context.Context, at, path string, limit int64, report func(done, total int64)) (err error) {
	u, err := c.Check(at)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot get %s: %w", u.Redacted(), err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = written(u, path, cerr)
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if report == nil {
		report = func(int64, int64) {}
	}
	d := &download{c: c, u: u, f: f, path: path, limit: limit, report: report}
	fails := 0 // in a row
	for range maxAttempts {
		before := d.best
		asked, aerr := d.attempt(ctx)
		if err = aerr; err == nil {
			return nil
		}
		if d.best > before {
			fails = 0
		}
		if fails++; fails >= c.opt.Attempts || !api.AsError(err).Retryable {
			return err
		}
		if c.pause(ctx, fails, asked) != nil {
			return broken(ctx, u, err)
		}
	}
	return err
}

// download is one file on its way.
type download struct {
	c      *Client
	u      *url.URL
	f      *os.File
	path   string
	limit  int64
	report func(done, total int64)

	done  int64  // bytes there
	best  int64  // the most there ever were
	total int64  // bytes of the whole, 0 where not known
	same  string // what an If-Range needs to go on; empty: from the beginning
}

// attempt asks once for what is missing. asked is how long the server wants to be
// left alone.
func (d *download) attempt(ctx context.Context) (asked time.Duration, err error) {
	header := http.Header{}
	if d.done > 0 && d.same != "" {
		header.Set("Range", fmt.Sprintf("bytes=%d-", d.done))
		header.Set("If-Range", d.same)
	}
	a, err := d.c.ask(ctx, d.u, header)
	if err != nil {
		return 0, err
	}
	defer a.close()
	switch a.resp.StatusCode {
	case http.StatusOK:
		if err := d.begin(a.resp); err != nil {
			return 0, err
		}
	case http.StatusPartialContent:
		if !d.goesOn(a.resp) {
			d.same = "" // from the beginning, next time
			return 0, broken(ctx, d.u, errors.New("the server sent another part than was asked for"))
		}
	case http.StatusRequestedRangeNotSatisfiable:
		d.same = ""
		return 0, broken(ctx, d.u, errors.New("the file has become shorter"))
	default:
		return retryAfter(a.resp), refused(d.u, a.resp)
	}
	if d.total > d.limit {
		return 0, tooLarge(d.u, d.limit)
	}
	if err := d.copy(ctx, a); err != nil {
		return 0, err
	}
	if d.total > 0 && d.done != d.total {
		return 0, broken(ctx, d.u, io.ErrUnexpectedEOF)
	}
	return 0, nil
}

// begin starts from the first byte.
func (d *download) begin(r *http.Response) error {
	if _, err := d.f.Seek(0, io.SeekStart); err != nil {
		return written(d.u, d.path, err)
	}
	if err := d.f.Truncate(0); err != nil {
		return written(d.u, d.path, err)
	}
	d.done, d.total, d.same = 0, max(r.ContentLength, 0), ""
	if r.Header.Get("Accept-Ranges") != "none" {
		// A weak tag does not promise the same bytes.
		if etag := r.Header.Get("ETag"); etag != "" && !strings.HasPrefix(etag, "W/") {
			d.same = etag
		} else {
			d.same = r.Header.Get("Last-Modified")
		}
	}
	return nil
}

// goesOn says whether an answer is the rest of what is there.
func (d *download) goesOn(r *http.Response) bool {
	var first, last, total int64
	n, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total)
	return err == nil && n == 3 && first == d.done && last == total-1 && (d.total == 0 || total == d.total)
}

func (d *download) copy(ctx context.Context, a *answer) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := a.Read(buf)
		if n > 0 {
			if d.done+int64(n) > d.limit {
				return tooLarge(d.u, d.limit)
			}
			if _, err := d.f.Write(buf[:n]); err != nil {
				return written(d.u, d.path, err)
			}
			d.done += int64(n)
			d.best = max(d.best, d.done)
			d.report(d.done, d.total)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return broken(ctx, d.u, err)
		}
	}
}

// written is an error of the disk.
func written(u *url.URL, path string, err error) error {
	kind := api.KindInternal
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		kind = api.KindNoSpace
	}
	return api.Errorf(kind, "cannot get %s: %w", u.Redacted(), err).WithHint("df -h %s", filepath.Dir(path))
}

package oci

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/internal/layers/gunzip"
)

// What is known of a layer that was unpacked before is kept with its blob, and
// lost with it: the diff id in an attribute of the file, and the points in a file
// beside it, whose digest the attribute has too. Where the file system has no such
// attributes, all is found out anew each time.
const unpackedAttr = "user.banger.unpacked"

// maxPoints bounds the file of points; 512 of them, in base64, are 22 MiB.
const maxPoints = 32 << 20

// unpackedTo is the attribute's value.
type unpackedTo struct {
	DiffID string `json:"diff_id"`
	Points string `json:"points,omitempty"` // digest of the file of points
}

func (b *Blobs) pointsOf(digest string) string { return b.path(digest) + ".points" }

// recall fills in what is known of a layer that is here.
func (b *Blobs) recall(l *Layer, bl blob) {
	l.Unpacked = func(points []gunzip.Point) { b.note(l.Digest, l.DiffID, points) }
	l.Known, l.Points = b.known(l.Digest, l.DiffID)
	l.OpenAt = func(offset int64) (io.ReadCloser, error) {
		f, err := os.Open(b.path(bl.digest))
		if err != nil {
			return nil, b.notHere(bl, err)
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			_ = f.Close()
			return nil, b.notHere(bl, err)
		}
		return f, nil
	}
	l.Check = func(ctx context.Context) error {
		r, err := b.open(bl)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{untilDone{ctx, r}}, make([]byte, 256<<10))
		return err
	}
}

// note keeps what a layer unpacks to. It is for speed alone: failures are no
// matter, for what was half written is not taken.
func (b *Blobs) note(digest, diffID string, points []gunzip.Point) {
	to := unpackedTo{DiffID: diffID}
	if len(points) > 0 {
		text, err := json.Marshal(points)
		if err != nil || os.WriteFile(b.pointsOf(digest), text, 0o600) != nil {
			return
		}
		to.Points = digestOf(text)
	}
	if text, err := json.Marshal(to); err == nil {
		_ = unix.Lsetxattr(b.path(digest), unpackedAttr, text, 0)
	}
}

// known says whether a layer is known to unpack to that, and where reading it can
// begin.
func (b *Blobs) known(digest, diffID string) (bool, []gunzip.Point) {
	var value [1024]byte
	n, err := unix.Lgetxattr(b.path(digest), unpackedAttr, value[:])
	var to unpackedTo
	if err != nil || json.Unmarshal(value[:n], &to) != nil || to.DiffID != diffID || diffID == "" {
		return false, nil
	}
	f, err := os.Open(b.pointsOf(digest))
	if err != nil {
		return true, nil
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxPoints))
	var points []gunzip.Point
	if err != nil || digestOf(text) != to.Points || json.Unmarshal(text, &points) != nil {
		return true, nil
	}
	return true, points
}

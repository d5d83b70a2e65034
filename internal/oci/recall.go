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

// maxPointsFile is in bytes; 512 points, in base64, are 22 MiB.
const maxPointsFile = 32 << 20

// unpackedVersion is the generation of what is kept.
const unpackedVersion = 1

// unpackedTo is the attribute's value.
type unpackedTo struct {
	Version int    `json:"version"`
	DiffID  string `json:"diff_id"`
	Points  string `json:"points,omitempty"` // digest of the file of points
}

func (b *Blobs) pointsOf(digest string) string { return b.path(digest) + ".points" }

// manyPoints are enough for the largest image there may be: 64 GiB.
const manyPoints = 4096

// recall fills in what is known of layers that are here. A layer that is there
// several times is looked up once, and an image has so many points at most.
func (b *Blobs) recall(ctx context.Context, layers []Layer, blobs []blob) error {
	type fact struct {
		known  bool
		points []gunzip.Point
	}
	facts := map[[2]string]fact{}
	left := manyPoints
	for n := range layers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l := &layers[n]
		key := [2]string{l.Digest, l.DiffID}
		f, ok := facts[key]
		if !ok {
			f.known, f.points = b.known(l.Digest, l.DiffID)
			facts[key] = f
		}
		l.Known = f.known
		if left -= len(f.points); left >= 0 {
			l.Points = f.points
		}
		b.access(l, blobs[n])
	}
	return nil
}

// access gives a layer its ways to its bytes.
func (b *Blobs) access(l *Layer, bl blob) {
	l.Unpacked = func(points []gunzip.Point) { b.note(bl.digest, l.DiffID, points) }
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
		if err == nil { // so what was kept of it is wrong
			b.forget(bl.digest)
		}
		return err
	}
}

// note keeps what a layer unpacks to. It is for speed alone: failures are no
// matter, for what was half written is not taken.
func (b *Blobs) note(digest, diffID string, points []gunzip.Point) {
	to := unpackedTo{Version: unpackedVersion, DiffID: diffID}
	if len(points) > 0 {
		text, err := json.Marshal(points)
		if err == nil {
			err = os.WriteFile(b.pointsOf(digest), text, 0o600)
		}
		if err != nil {
			b.forget(digest)
			return
		}
		to.Points = digestOf(text)
	}
	text, err := json.Marshal(to)
	if err == nil {
		err = unix.Lsetxattr(b.path(digest), unpackedAttr, text, 0)
	}
	if err != nil {
		b.forget(digest)
	}
}

// forget drops what is kept of a layer; the blob stays.
func (b *Blobs) forget(digest string) {
	_ = os.Remove(b.pointsOf(digest))
	_ = unix.Lremovexattr(b.path(digest), unpackedAttr)
}

// known says whether a layer is known to unpack to that, and where reading it can
// begin.
func (b *Blobs) known(digest, diffID string) (bool, []gunzip.Point) {
	var value [1024]byte
	n, err := unix.Lgetxattr(b.path(digest), unpackedAttr, value[:])
	var to unpackedTo
	if err != nil || json.Unmarshal(value[:n], &to) != nil || to.Version != unpackedVersion || to.DiffID != diffID || diffID == "" {
		return false, nil
	}
	f, err := os.Open(b.pointsOf(digest))
	if err != nil {
		return true, nil
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxPointsFile))
	var points []gunzip.Point
	if err != nil || digestOf(text) != to.Points || json.Unmarshal(text, &points) != nil {
		return true, nil
	}
	return true, points
}

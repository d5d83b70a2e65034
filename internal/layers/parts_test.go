package layers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layers/gunzip"
)

// large are two layers, of which the first is in parts the second time. told has
// what the first time found out.
func large(t *testing.T) (ls []Layer, told *[]gunzip.Point, blob []byte) {
	t.Helper()
	text := strings.Repeat(noise(1, 1<<20)+strings.Repeat("some text ", 300_000), 14)
	ls = stack(t, []m{file("a", "1"), file("big", text), file("b", "2")}, []m{file("b", "3")})
	rc, err := ls[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, rc); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blob = packed.Bytes()
	told = new([]gunzip.Point)
	ls[0].Size = int64(len(blob))
	ls[0].Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }
	ls[0].Unpacked = func(p []gunzip.Point) { *told = p }
	return ls, told, blob
}

// again is a layer of which it is known what it unpacks to.
func again(l Layer, points []gunzip.Point, blob []byte, check error) Layer {
	l.Known, l.Points = true, points
	l.Open = func() (io.ReadCloser, error) { return nil, errors.New("it was read from its begin") }
	l.OpenAt = func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob[min(offset, int64(len(blob))):])), nil }
	l.Check = func(context.Context) error { return check }
	l.Unpacked = func([]gunzip.Point) { panic("it was known") }
	return l
}

// A layer that is known is unpacked in parts, and what comes out is the same.
func TestALayerInParts(t *testing.T) {
	t.Parallel()
	ls, told, blob := large(t)
	dir := t.TempDir()
	first, err := Write(t.Context(), filepath.Join(dir, "a"), ext4.UUID("x"), ls, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	points := *told
	if len(points) < 3 {
		t.Fatalf("%d points in %d bytes", len(points), first.Uncompressed)
	}
	ls[0] = again(ls[0], points, blob, nil)
	second, err := Write(t.Context(), filepath.Join(dir, "b"), ext4.UUID("x"), ls, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.Uncompressed != second.Uncompressed || first.Members != second.Members {
		t.Errorf("first %+v, then %+v", first, second)
	}
	a, aerr := os.ReadFile(filepath.Join(dir, "a"))
	b, berr := os.ReadFile(filepath.Join(dir, "b"))
	if aerr != nil || berr != nil || !bytes.Equal(a, b) {
		t.Errorf("the file systems differ, of %d and %d bytes: %v, %v", len(a), len(b), aerr, berr)
	}
}

// Parts are not hashed: the check of all bytes decides, whatever came out, and its
// error is the one that is told.
func TestADamagedLayerInParts(t *testing.T) {
	t.Parallel()
	ls, told, blob := large(t)
	if _, err := write(t, ls, Limits{}); err != nil {
		t.Fatal(err)
	}
	rotten := api.Errorf(api.KindUnavailable, "it was damaged on the disk")
	damaged := bytes.Clone(blob)
	damaged[len(blob)/2] ^= 0x55
	for name, b := range map[string][]byte{"nobody would notice": blob, "not even gzip": damaged, "cut short": blob[:len(blob)/2]} {
		_, err := write(t, []Layer{again(ls[0], *told, b, rotten), ls[1]}, Limits{})
		if !errors.Is(err, rotten) || api.KindOf(err) != api.KindUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Points of something else are found out, too.
	wrong := bytes.Clone(blob[:len(blob)/3])
	if _, err := write(t, []Layer{again(ls[0], *told, wrong, nil), ls[1]}, Limits{}); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("points of another layer: %v", err)
	}
}

// However large a layer is, the points take little memory.
func TestPointsAreBounded(t *testing.T) {
	t.Parallel()
	var p points
	p.every = partBytes
	for i := range 10 * maxPoints {
		p.add(gunzip.Point{Out: int64(i) * partBytes})
	}
	if len(p.list) < maxPoints/2 || len(p.list) >= maxPoints {
		t.Fatalf("%d points", len(p.list))
	}
	for i := range p.list[1:] {
		if d := p.list[i+1].Out - p.list[i].Out; d != p.every {
			t.Errorf("parts of %d and of %d bytes", d, p.every)
		}
	}
}

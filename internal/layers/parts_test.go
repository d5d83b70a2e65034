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
	l.OpenAt = func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(blob[min(offset, int64(len(blob))):])), nil
	}
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

// A part that is not what it was is noticed by its sum, and the check of all bytes
// says what is wrong.
func TestADamagedLayerInParts(t *testing.T) {
	t.Parallel()
	ls, told, blob := large(t)
	if _, err := write(t, ls, Limits{}); err != nil {
		t.Fatal(err)
	}
	rotten := api.Errorf(api.KindUnavailable, "it was damaged on the disk")
	// Noise is stored as it is: what changes there is good gzip, and a good archive.
	stored := bytes.Clone(blob)
	at := bytes.Index(blob, []byte(noise(1, 1<<20)[1000:1100]))
	if at < 0 {
		t.Fatal("no noise is found in the blob")
	}
	stored[at] ^= 1
	for name, b := range map[string][]byte{"still gzip": stored, "cut short": blob[:len(blob)/2]} {
		if _, err := write(t, []Layer{again(ls[0], *told, b, rotten), ls[1]}, Limits{}); !errors.Is(err, rotten) || api.KindOf(err) != api.KindUnavailable {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := write(t, []Layer{again(ls[0], *told, b, nil), ls[1]}, Limits{}); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s, and nothing is wrong with it: %v", name, err)
		}
	}
}

// However large a layer is, and however well compressed, its points take little
// memory.
func TestPointsAreBounded(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{1: 1, maxPoints: maxPoints, maxPoints + 1: 0, 10 * maxPoints: 0} {
		var p points
		for i := range n {
			p.add(gunzip.Point{Out: int64(i)})
		}
		if len(p.list) != want {
			t.Errorf("of %d there are %d points", n, len(p.list))
		}
	}
}

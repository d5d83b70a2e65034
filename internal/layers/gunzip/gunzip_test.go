package gunzip

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func pack(t testing.TB, level int, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// contents are of all kinds: nothing, text, noise, runs, long distances, skewed
// symbols that make for long codes.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 700_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	skewed := make([]byte, 2_000_000)
	for i := range skewed {
		skewed[i] = byte(r.ExpFloat64() * 9)
	}
	return map[string][]byte{
		"nothing": nil, "a byte": []byte("x"), "text": []byte(strings.Repeat("the quick brown fox ", 50_000)), "noise": noise, "zeros": make([]byte, 3_000_000),
		"skewed": skewed, "far": bytes.Repeat(noise[:32<<10], 20), "threes": []byte(strings.Repeat("abc", 300_000)),
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	var all, packed []byte
	for name, b := range contents() {
		for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, 1, 6, 9} {
			z := pack(t, level, b)
			got, err := io.ReadAll(NewReader(bytes.NewReader(z)))
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s, level %d: %d bytes of %d, %v", name, level, len(got), len(b), err)
			}
			all, packed = append(all, b...), append(packed, z...)
		}
	}
	got, err := io.ReadAll(NewReader(iotest.HalfReader(bytes.NewReader(packed))))
	if err != nil || !bytes.Equal(got, all) {
		t.Errorf("many members: %d bytes of %d, %v", len(got), len(all), err)
	}
	small := packed[:min(len(packed), 100_000)]
	one, oneErr := io.ReadAll(NewReader(iotest.OneByteReader(bytes.NewReader(small))))
	two, twoErr := io.ReadAll(NewReader(bytes.NewReader(small)))
	if !bytes.Equal(one, two) || !errors.Is(oneErr, twoErr) {
		t.Errorf("byte by byte: %d bytes, %v; at once: %d, %v", len(one), oneErr, len(two), twoErr)
	}
}

// Cut anywhere, or with any byte changed, it is an error.
func TestDamage(t *testing.T) {
	t.Parallel()
	z := pack(t, 6, []byte(strings.Repeat("some text, ", 40)+"and more"))
	for n := 1; n < len(z); n++ {
		if _, err := io.ReadAll(NewReader(bytes.NewReader(z[:n]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d of %d: %v", n, len(z), err)
		}
	}
	for i := 30; i < len(z); i++ { // behind the header with its names
		bad := bytes.Clone(z)
		bad[i] ^= 0x10
		if _, err := io.ReadAll(NewReader(bytes.NewReader(bad))); err == nil {
			t.Errorf("byte %d changed: it was taken", i)
		}
	}
	if _, err := io.ReadAll(NewReader(bytes.NewReader(append(bytes.Clone(z), "garbage behind"...)))); !errors.Is(err, ErrFormat) {
		t.Errorf("garbage behind: %v", err)
	}
	mine := errors.New("mine")
	got, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(z[:len(z)-8]), iotest.ErrReader(mine))))
	if !errors.Is(err, mine) {
		t.Errorf("the source's error: %d bytes, %v", len(got), err)
	}
}

// From each point on, the rest is what a reading of all gives, also behind the end
// of its member.
func TestPoints(t *testing.T) {
	t.Parallel()
	var packed, all []byte
	for _, name := range []string{"text", "noise", "zeros", "skewed", "far"} {
		b := contents()[name]
		all, packed = append(all, b...), append(packed, pack(t, 6, b)...)
	}
	var points []Point
	z := NewReader(iotest.HalfReader(bytes.NewReader(packed)))
	z.Mark(100_000, func(p Point) { points = append(points, p) })
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, all) {
		t.Fatalf("%d bytes of %d: %v", len(got), len(all), err)
	}
	if len(points) < 10 {
		t.Fatalf("%d points", len(points))
	}
	odd, last := 0, int64(0)
	for i, p := range points {
		if end := i == len(points)-1; p.Out-last < 100_000 && !end || end && p.Out != int64(len(all)) {
			t.Errorf("points at %d and %d", last, p.Out)
		}
		if sum := crc32.ChecksumIEEE(all[last:p.Out]); sum != p.Sum {
			t.Errorf("from %d to %d: sum %x, want %x", last, p.Out, p.Sum, sum)
		}
		if last = p.Out; last == int64(len(all)) {
			continue
		}
		if p.In%8 != 0 {
			odd++
		}
		got, err := io.ReadAll(NewReaderAt(bytes.NewReader(packed[p.In/8:]), p))
		if err != nil || !bytes.Equal(got, all[p.Out:]) {
			t.Errorf("from %d on: %d bytes of %d: %v", p.Out, len(got), len(all[p.Out:]), err)
		}
	}
	if odd == 0 {
		t.Error("no point lies within a byte")
	}
	refused := 0
	for _, p := range points {
		p.Window = nil
		if _, err := io.ReadAll(NewReaderAt(bytes.NewReader(packed[p.In/8:]), p)); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("what matches refer to is never missed")
	}
}

// FuzzRead holds it against compress/gzip.
func FuzzRead(f *testing.F) {
	for _, b := range contents() {
		f.Add(pack(f, 6, b[:min(len(b), 3000)]))
	}
	f.Add(pack(f, gzip.HuffmanOnly, contents()["skewed"][:5000]))
	f.Fuzz(func(t *testing.T, b []byte) {
		var want []byte
		std, wantErr := gzip.NewReader(bytes.NewReader(b))
		if wantErr == nil {
			want, wantErr = io.ReadAll(io.LimitReader(std, 1<<22))
		}
		got, err := io.ReadAll(io.LimitReader(NewReader(bytes.NewReader(b)), 1<<22))
		if len(b) == 0 {
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, but compress/gzip says %v", err, wantErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, but compress/gzip gives %d", len(got), len(want))
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for name, c := range contents() {
		z := pack(b, 6, c)
		for _, who := range []string{"ours", "std"} {
			b.Run(fmt.Sprintf("%s/%s", name, who), func(b *testing.B) {
				b.SetBytes(int64(len(c)))
				for b.Loop() {
					var r io.Reader = NewReader(bytes.NewReader(z))
					if who == "std" {
						var err error
						if r, err = gzip.NewReader(bytes.NewReader(z)); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := io.Copy(io.Discard, r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

package layerstest

import (
	"archive/tar"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Big is an image's size. Its layers are the same every time: a first layer of
// half of everything, further ones that add, replace, link and hide some.
type Big struct {
	Layers, Entries int
	Bytes           int64
}

// Standard is the image that the figures of SPECIFICATION.md are about.
func Standard() Big { return Big{Layers: 10, Entries: 50_000, Bytes: 1_500_000_000} }

// Sources are the image's layers, bottom first.
func (b Big) Sources() []Source {
	corpus := makeCorpus()
	list := make([]Source, b.Layers)
	for i := range list {
		share := 2 * (b.Layers - 1)
		if i == 0 {
			share = 2
		}
		entries, bytes := b.Entries/share, b.Bytes/int64(share)
		list[i] = func(w io.Writer) error {
			g := generator{tw: tar.NewWriter(w), rand: rand.New(rand.NewPCG(uint64(i), 7)), corpus: corpus, layer: i}
			return g.write(entries, bytes)
		}
	}
	return list
}

// corpus is text and code-like bytes to cut files from; gzip makes a third of it.
func makeCorpus() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 2+r.IntN(9))
		for j := range words[i] {
			words[i][j] = byte(r.IntN(256))
			if i%4 != 0 {
				words[i][j] = 'a' + words[i][j]%26
			}
		}
	}
	corpus := make([]byte, 0, 8<<20)
	for len(corpus) < cap(corpus)-16 {
		corpus = append(append(corpus, words[min(r.IntN(4096), r.IntN(4096))]...), ' ')
	}
	return corpus
}

type generator struct {
	tw     *tar.Writer
	rand   *rand.Rand
	corpus []byte
	layer  int
}

func (g *generator) write(entries int, bytes int64) error {
	const perFolder = 25
	left := bytes
	for n := 0; n < entries; n++ {
		files := int64(entries-n)*9/10 + 1
		folder := fmt.Sprintf("usr/lib/layer%d/package%d", g.layer, n/perFolder)
		name := fmt.Sprintf("%s/file%d", folder, n)
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(1_700_000_000+int64(n), 0), Format: tar.FormatPAX}
		switch {
		case n%perFolder == 0:
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, folder, 0o755
		case n%perFolder == 1:
			h.Typeflag, h.Linkname = tar.TypeSymlink, fmt.Sprintf("file%d", n+1)
		case n%perFolder == 3:
			h.Typeflag, h.Linkname = tar.TypeLink, fmt.Sprintf("%s/file%d", folder, n-1)
		case g.layer > 0 && n%200 == 10: // replaces one of the first layer
			h.Name = fmt.Sprintf("usr/lib/layer0/package%d/file%d", n/perFolder, n)
		case g.layer > 0 && n%200 == 30: // hides one of the first layer
			h.Name = fmt.Sprintf("usr/lib/layer0/package%d/.wh.file%d", n/perFolder, n)
		}
		if h.Typeflag != tar.TypeReg || n%200 == 30 && g.layer > 0 {
			if err := g.tw.WriteHeader(&h); err != nil {
				return err
			}
			continue
		}
		// Most files are small, a few large; the sum is what was asked for.
		h.Size = left / files / 4
		if g.rand.IntN(16) == 0 {
			h.Size *= int64(8 + g.rand.IntN(80))
		}
		if h.Size = min(h.Size, left); n == entries-1 {
			h.Size = left
		}
		left -= h.Size
		if err := g.tw.WriteHeader(&h); err != nil {
			return err
		}
		if err := g.content(h.Size); err != nil {
			return err
		}
	}
	return g.tw.Close()
}

func (g *generator) content(size int64) error {
	for size > 0 {
		n := min(size, 4096+int64(g.rand.IntN(60<<10)))
		at := g.rand.Int64N(int64(len(g.corpus)) - n)
		if _, err := g.tw.Write(g.corpus[at : at+n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

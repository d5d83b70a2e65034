package ocitest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// Tar makes an archive. A header without a size gets that of its body, one
// without a mode 0644, or 0755 for a folder.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Name == "" {
			h.Name = e.Name
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Size == 0 {
			h.Size = int64(len(e.Body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Entry is a member of an archive.
type Entry struct {
	Name   string
	Body   string
	Header tar.Header // what else there is to say
}

// File is an entry with content.
func File(name, body string) Entry { return Entry{Name: name, Body: body} }

// Dir is an entry that is a folder.
func Dir(name string) Entry { return Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir}} }

// Symlink is an entry that points to another.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}}
}

// Random gives bytes that do not compress, the same ones for the same seed.
func Random(seed byte, size int) string {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// Layer is a layer made of an archive.
type Layer struct {
	Blob []byte // as stored
	Tar  []byte
	Kind types.MediaType
}

// Plain, Gzip and Zstd make layers of an archive, as OCI calls them.
func Plain(archive []byte) *Layer {
	return &Layer{Blob: archive, Tar: archive, Kind: types.OCIUncompressedLayer}
}

// Gzip compresses with gzip.
func Gzip(archive []byte) *Layer {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(archive)
	_ = w.Close()
	return &Layer{Blob: b.Bytes(), Tar: archive, Kind: types.OCILayer}
}

// Zstd compresses with zstd.
func Zstd(archive []byte) *Layer {
	w, _ := zstd.NewWriter(nil)
	return &Layer{Blob: w.EncodeAll(archive, nil), Tar: archive, Kind: types.OCILayerZStd}
}

// Digest and the others make it a v1.Layer.
func (l *Layer) Digest() (v1.Hash, error)             { return hash(l.Blob), nil }
func (l *Layer) DiffID() (v1.Hash, error)             { return hash(l.Tar), nil }
func (l *Layer) Compressed() (io.ReadCloser, error)   { return reader(l.Blob), nil }
func (l *Layer) Uncompressed() (io.ReadCloser, error) { return reader(l.Tar), nil }
func (l *Layer) Size() (int64, error)                 { return int64(len(l.Blob)), nil }
func (l *Layer) MediaType() (types.MediaType, error)  { return l.Kind, nil }

// DigestOf is the digest of some bytes.
func DigestOf(b []byte) string { return hash(b).String() }

func hash(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

func reader(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }

// Image makes an image for linux/amd64 of layers, bottom first.
func Image(t testing.TB, config v1.Config, layers ...*Layer) v1.Image {
	t.Helper()
	return ImageFor(t, "linux/amd64", config, layers...)
}

// ImageFor makes an image for a platform.
func ImageFor(t testing.TB, platform string, config v1.Config, layers ...*Layer) v1.Image {
	t.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for n, l := range layers {
		image, err = mutate.Append(image, mutate.Addendum{Layer: l, MediaType: l.Kind, History: v1.History{CreatedBy: fmt.Sprintf("layer %d", n)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = p.OS, p.Architecture, p.Variant
	file.Config = config
	file.Created = v1.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

// Index makes one image of several platforms of images, by platform.
func Index(t testing.TB, images map[string]v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for platform, image := range images {
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: p}})
	}
	return index
}

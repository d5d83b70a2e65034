// Package layerstest makes layers and OCI layouts for tests and benchmarks: small
// ones of given members, and a large one that is the same every time.
package layerstest

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"github.com/klauspost/compress/gzip"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// Member is a member of a layer. Its size is that of Data.
type Member struct {
	tar.Header
	Data string
}

// Source writes an uncompressed layer.
type Source func(io.Writer) error

// Tar is a layer of the members.
func Tar(members ...Member) Source {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, m := range members {
			h := m.Header
			h.Size = int64(len(m.Data))
			if err := tw.WriteHeader(&h); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			if _, err := io.WriteString(tw, m.Data); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}

// Compression is how a layer's blob is stored.
type Compression string

// The compressions that layers have.
const (
	Plain Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
)

// Blob is a layer in a layout.
type Blob struct {
	Path           string
	Digest, DiffID string
	Size           int64
}

// Open opens the blob.
func (b Blob) Open() (io.ReadCloser, error) { return os.Open(b.Path) }

// Layout writes an OCI layout of one image into the folder dir, under the tag.
func Layout(dir, tag string, compression Compression, sources []Source) ([]Blob, error) {
	folder := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	blobs := make([]Blob, len(sources))
	var group errgroup.Group
	group.SetLimit(2)
	for i, s := range sources {
		group.Go(func() (err error) {
			blobs[i], err = writeBlob(folder, fmt.Sprintf("layer-%d", i), compression, s)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return blobs, describe(dir, folder, tag, compression, blobs)
}

func writeBlob(folder, name string, compression Compression, s Source) (b Blob, err error) {
	f, err := os.Create(filepath.Join(folder, name))
	if err != nil {
		return b, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	sum, plain := sha256.New(), sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	var packer io.WriteCloser
	switch compression {
	case Gzip:
		packer = gzip.NewWriter(out)
	case Zstd:
		if packer, err = zstd.NewWriter(out, zstd.WithEncoderConcurrency(1)); err != nil {
			return b, err
		}
	default:
		packer = nopCloser{out}
	}
	if err := s(io.MultiWriter(packer, plain)); err != nil {
		return b, err
	}
	if err := packer.Close(); err != nil {
		return b, err
	}
	if err := out.Flush(); err != nil {
		return b, err
	}
	st, err := f.Stat()
	if err != nil {
		return b, err
	}
	hexSum := hex.EncodeToString(sum.Sum(nil))
	b = Blob{
		Path: filepath.Join(folder, hexSum), Size: st.Size(),
		Digest: "sha256:" + hexSum, DiffID: "sha256:" + hex.EncodeToString(plain.Sum(nil)),
	}
	return b, os.Rename(f.Name(), b.Path)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// describe writes config, manifest, index and the layout's own mark.
func describe(dir, folder, tag string, compression Compression, blobs []Blob) error {
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	put := func(mediaType string, v any) (descriptor, error) {
		text, err := json.Marshal(v)
		if err != nil {
			return descriptor{}, err
		}
		sum := sha256.Sum256(text)
		name := hex.EncodeToString(sum[:])
		return descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: len(text)}, os.WriteFile(filepath.Join(folder, name), text, 0o644)
	}
	layerType := "application/vnd.oci.image.layer.v1.tar"
	if compression != Plain {
		layerType += "+" + string(compression)
	}
	var diffIDs []string
	var layers []descriptor
	for _, b := range blobs {
		diffIDs = append(diffIDs, b.DiffID)
		layers = append(layers, descriptor{MediaType: layerType, Digest: b.Digest, Size: int(b.Size)})
	}
	config, err := put("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Env": []string{"PATH=/usr/bin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return err
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := put(manifestType, map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

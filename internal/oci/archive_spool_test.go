package oci

import (
	"encoding/binary"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

// A disk that cannot be read is not the archive's fault. The memory of a process
// reads like such a disk: at its beginning there is nothing but an I/O error.
func TestAnArchiveOnABadDisk(t *testing.T) {
	t.Parallel()
	_, err := opened(t, Archive{Path: "/proc/self/mem"})
	wantError(t, err, api.KindInternal, "", "cannot import /proc/self/mem", "input/output error")
}

// pzstd and seekable archives begin with a skippable frame of zstd.
func TestArchivesThatBeginWithASkippableFrame(t *testing.T) {
	t.Parallel()
	skip := func(magic uint32, body string, then []byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, magic)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
		return slices.Concat(b, []byte(body), then)
	}
	root := ocitest.Tar(t, ocitest.Dir("etc"), ocitest.File("etc/x", "1"))
	for _, magic := range []uint32{0x184D2A50, 0x184D2A5F} {
		b := skip(magic, "abcd", zst(root))
		image := mustOpen(t, Archive{Path: saved(t, "root.tar.zst", b)})
		diff(t, MediaTypeTarZstd, image.Layers[0].MediaType)
		checkLayers(t, image, b)
	}
	// As a layer of docker save's, and around all of it.
	layer := skip(0x184D2A50, "", zst(root))
	config, err := ocitest.Image(t, v1.Config{}, ocitest.Plain(root)).RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	archive := ocitest.Tar(t, ocitest.File("manifest.json", `[{"Config":"config.json","Layers":["layer.tar"]}]`),
		ocitest.File("config.json", string(config)), ocitest.File("layer.tar", string(layer)))
	image := mustOpen(t, Archive{Path: saved(t, "d.tar.zst", skip(0x184D2A51, "x", zst(archive)))})
	diff(t, MediaTypeTarZstd, image.Layers[0].MediaType)
	checkLayers(t, image, layer)
}

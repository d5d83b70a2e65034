package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layers/gunzip"
)

// Image is one resolved image: its configuration and its layers, bottom first,
// each readable as often as wanted until Close.
type Image struct {
	// Reference as asked for, in full; empty for an archive without one.
	Reference string
	// Digest of the manifest: sha256:…. Of the configuration for a docker archive,
	// which has no manifest, and of the file for a root file system.
	Digest string
	// TargetDigest is what the reference points to, and what Resolve gives: the
	// digest of the index for an image of several platforms, else Digest.
	TargetDigest string
	ConfigDigest string // empty for a root file system
	Config       api.ImageConfig
	Labels       map[string]string
	Platform     string // linux/amd64
	CreatedAt    time.Time
	Layers       []Layer

	release func()
}

// Close lets the cache forget the image's blobs when it is pruned. The layers
// must not be opened after it.
func (i *Image) Close() {
	if i.release != nil {
		i.release()
		i.release = nil
	}
}

// Layer is one layer of an image.
type Layer struct {
	Digest string // of the blob as stored
	// DiffID is the digest of the tar within, as the configuration says. It is
	// for whoever unpacks the layer to check; empty where nobody said.
	DiffID    string
	MediaType string // one of the MediaType… constants: how the blob is compressed
	Size      int64  // of the blob as stored
	// Open gives the bytes of the blob as stored. They are checked against the
	// digest as they are read: the error comes instead of io.EOF.
	Open func() (io.ReadCloser, error)

	// Of a layer in the blob cache; else nil. Unpacked is to be told when the layer
	// was unpacked and had its DiffID, with the points where reading it can begin.
	Unpacked func([]gunzip.Point)
	// Known is what Unpacked was told of these very bytes before, if it was.
	Known  bool
	Points []gunzip.Point
	// OpenAt gives the bytes as stored from one on, not checked; Check reads them all
	// for the digest.
	OpenAt func(offset int64) (io.ReadCloser, error)
	Check  func(context.Context) error
}

// The media types of layers.
const (
	MediaTypeTar     = "application/vnd.oci.image.layer.v1.tar"
	MediaTypeTarGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	MediaTypeTarZstd = "application/vnd.oci.image.layer.v1.tar+zstd"
)

// hostPlatform is what images must be for.
func hostPlatform() string { return "linux/" + runtime.GOARCH }

// setConfig takes over what the image's configuration says.
func (i *Image) setConfig(c *v1.ConfigFile, want v1.Platform) error {
	has := v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	if !matches(has, want) {
		return api.Errorf(api.KindUnsupported, "it is for %s, and this host runs %s", platformName(has), platformName(want))
	}
	i.Platform = platformName(want)
	i.CreatedAt = c.Created.UTC()
	i.Labels = c.Config.Labels
	i.Config = api.ImageConfig{
		Env: c.Config.Env, Workdir: c.Config.WorkingDir, User: c.Config.User, Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd,
	}
	texts := append([]string{i.Config.Workdir, i.Config.User}, i.Config.Env...)
	for _, s := range append(append(texts, i.Config.Entrypoint...), i.Config.Cmd...) {
		if strings.ContainsRune(s, 0) {
			return errors.New("its configuration holds a zero byte")
		}
	}
	return nil
}

// setDiffIDs gives each layer its own.
func (i *Image) setDiffIDs(c *v1.ConfigFile) error {
	if len(c.RootFS.DiffIDs) != len(i.Layers) {
		return fmt.Errorf("it has %d layers, its configuration says %d", len(i.Layers), len(c.RootFS.DiffIDs))
	}
	for n, id := range c.RootFS.DiffIDs {
		if err := checkDigest(id.String()); err != nil {
			return fmt.Errorf("its configuration is wrong: %w", err)
		}
		i.Layers[n].DiffID = id.String()
	}
	return nil
}

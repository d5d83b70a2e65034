package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"

	"github.com/bangervm/banger/internal/compression"
)

// dockerImage is one image in the manifest.json of docker save.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// imageInDocker finds the image in what docker save, podman or skopeo wrote.
func imageInDocker(c contents, manifest []byte, ref string, platform v1.Platform) (*Image, error) {
	images, err := parseDockerManifest(manifest)
	if err != nil {
		return nil, err
	}
	all := make([]named[dockerImage], 0, len(images))
	for _, i := range images {
		hex := strings.TrimSuffix(path.Base(i.Config), ".json")
		all = append(all, named[dockerImage]{names: i.RepoTags, digest: "sha256:" + hex, image: i})
	}
	chosen, err := pick(all, ref)
	if err != nil {
		return nil, err
	}
	b, err := small(c, chosen.image.Config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("its configuration %s is not in the archive", clip(chosen.image.Config))
	}
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(b)
	if err != nil {
		return nil, err
	}
	image := &Image{Reference: chosen.reference(ref), ConfigDigest: digestOf(b)}
	image.Digest, image.TargetDigest = image.ConfigDigest, image.ConfigDigest
	if checkDigest(chosen.digest) == nil && chosen.digest != image.ConfigDigest {
		return nil, fmt.Errorf("its configuration is damaged: expected %s, but %s came", chosen.digest, image.ConfigDigest)
	}
	if err := image.setConfig(config, platform); err != nil {
		return nil, err
	}
	image.Layers = make([]Layer, len(chosen.image.Layers))
	if err := image.setDiffIDs(config); err != nil {
		return nil, err
	}
	for n, name := range chosen.image.Layers {
		diffID := image.Layers[n].DiffID
		if image.Layers[n], err = dockerLayer(c, name, diffID); err != nil {
			return nil, err
		}
	}
	return image, nil
}

// dockerLayer gives a member as a layer. What is uncompressed has the digest that
// the configuration says; what is compressed the one in its name, or none, and is
// then read for it.
func dockerLayer(c contents, name, diffID string) (Layer, error) {
	format, err := sniffMember(c, name)
	if err != nil {
		return Layer{}, err
	}
	mediaType, ok := mediaTypeOf(format)
	if !ok {
		return Layer{}, fmt.Errorf("its layer %s is compressed in a way that docker save does not know", clip(name))
	}
	d := diffID
	if format != compression.None {
		if d = strings.Replace(strings.TrimPrefix(name, "blobs/"), "/", ":", 1); checkDigest(d) != nil {
			if d, err = memberDigest(c, name); err != nil {
				return Layer{}, err
			}
		}
	}
	layer, err := layerIn(c, name, d, -1)
	layer.DiffID, layer.MediaType = diffID, mediaType
	return layer, err
}

func sniffMember(c contents, name string) (compression.Format, error) {
	r, _, err := c.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("its layer %s is not in the archive", clip(name))
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	return sniffReader(r)
}

func memberDigest(c contents, name string) (string, error) {
	r, _, err := c.open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	digester := digest.SHA256.Digester()
	if _, err := io.Copy(digester.Hash(), r); err != nil {
		return "", err
	}
	return digester.Digest().String(), nil
}

// maxTags is how many names an image may have.
const maxTags = 10_000

// parseDockerManifest reads a manifest.json, and gives the names of members as
// they are looked for.
func parseDockerManifest(b []byte) ([]dockerImage, error) {
	var images []dockerImage
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&images); err != nil {
		return nil, fmt.Errorf("its manifest.json cannot be read: %w", err)
	}
	if len(images) > maxManifests {
		return nil, fmt.Errorf("its manifest.json lists %d images, more than %d", len(images), maxManifests)
	}
	for i := range images {
		m := &images[i]
		if m.Config == "" {
			return nil, errors.New("its manifest.json names no configuration")
		}
		if len(m.Layers) > maxLayers || len(m.RepoTags) > maxTags {
			return nil, fmt.Errorf("its manifest.json lists %d layers and %d names, more than %d and %d", len(m.Layers), len(m.RepoTags), maxLayers, maxTags)
		}
		for n, l := range m.Layers {
			if m.Layers[n] = memberName(l); m.Layers[n] == "" {
				return nil, errors.New("its manifest.json lists a layer without a name")
			}
		}
		m.Config = memberName(m.Config)
	}
	return images, nil
}

package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bangervm/banger/api"
)

// What is read of a registry or an archive at most.
const (
	maxManifest  = 4 << 20 // bytes of a manifest, an index or a configuration
	maxLayers    = 512
	maxManifests = 1024 // in an index
)

// document is a manifest or an index, whichever the bytes are.
type document struct {
	manifest *v1.Manifest
	index    *v1.IndexManifest
}

// parseDocument reads what a registry or a layout gave under a digest. mediaType
// is what was said about it beside its bytes; it may be empty.
func parseDocument(b []byte, mediaType string) (document, error) {
	if len(b) > maxManifest {
		return document{}, fmt.Errorf("its manifest is larger than %d bytes", maxManifest)
	}
	var look struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(b, &look); err != nil {
		return document{}, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	if look.MediaType != "" {
		mediaType = look.MediaType
	}
	kind := types.MediaType(strings.TrimSpace(mediaType))
	switch {
	case look.SchemaVersion == 1 || look.FSLayers != nil || kind.IsSchema1():
		return document{}, api.Errorf(api.KindUnsupported, "its manifest is of the old schema 1, which has no digests to check layers with; push it again with a current tool")
	case look.Manifests != nil && (look.Layers != nil || look.Config != nil):
		return document{}, errors.New("its manifest claims to be an image and an index at once")
	case kind.IsIndex() || !kind.IsImage() && look.Manifests != nil:
		return parseIndex(b)
	case kind.IsImage() || look.Layers != nil && look.Config != nil:
		return parseManifest(b)
	}
	return document{}, api.Errorf(api.KindUnsupported, "it is of media type %q, no image", clip(mediaType))
}

func parseIndex(b []byte) (document, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(b))
	if err != nil {
		return document{}, fmt.Errorf("its index cannot be read: %w", err)
	}
	if len(index.Manifests) > maxManifests {
		return document{}, fmt.Errorf("its index lists %d manifests, more than %d", len(index.Manifests), maxManifests)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor("manifest", d); err != nil {
			return document{}, err
		}
	}
	return document{index: index}, nil
}

func parseManifest(b []byte) (document, error) {
	m, err := v1.ParseManifest(bytes.NewReader(b))
	if err != nil {
		return document{}, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	switch m.Config.MediaType {
	case types.DockerConfigJSON, types.OCIConfigJSON:
	default:
		what := m.ArtifactType
		if what == "" {
			what = string(m.Config.MediaType)
		}
		return document{}, api.Errorf(api.KindUnsupported, "it is an artifact of type %q, no image that a machine could run", clip(what))
	}
	if err := checkDescriptor("configuration", m.Config); err != nil {
		return document{}, err
	}
	if m.Config.Size > maxManifest {
		return document{}, fmt.Errorf("its configuration has %d bytes, more than %d", m.Config.Size, maxManifest)
	}
	if len(m.Layers) > maxLayers {
		return document{}, fmt.Errorf("it has %d layers, more than %d", len(m.Layers), maxLayers)
	}
	for _, l := range m.Layers {
		if err := checkDescriptor("layer", l); err != nil {
			return document{}, err
		}
		if _, err := layerType(l); err != nil {
			return document{}, err
		}
	}
	return document{manifest: m}, nil
}

func checkDescriptor(what string, d v1.Descriptor) error {
	if err := checkDigest(d.Digest.String()); err != nil {
		return fmt.Errorf("the digest of a %s is wrong: %w", what, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("the %s %s has a negative size", what, d.Digest)
	}
	return nil
}

// layerType gives the media type of a layer as one of ours.
func layerType(l v1.Descriptor) (string, error) {
	switch l.MediaType {
	case types.DockerLayer, types.OCILayer:
		return MediaTypeTarGzip, nil
	case types.OCILayerZStd, "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return MediaTypeTarZstd, nil
	case types.DockerUncompressedLayer, types.OCIUncompressedLayer:
		return MediaTypeTar, nil
	}
	if !l.MediaType.IsDistributable() || len(l.URLs) > 0 {
		return "", api.Errorf(api.KindUnsupported, "its layer %s is a foreign one, to be had from its maker only", l.Digest)
	}
	return "", api.Errorf(api.KindUnsupported, "its layer %s is of media type %q, which cannot be unpacked here", l.Digest, clip(string(l.MediaType)))
}

// choose finds the manifest for a platform in an index. The error lists what
// there is.
func choose(index *v1.IndexManifest, want v1.Platform) (v1.Descriptor, error) {
	var there []string
	for _, d := range index.Manifests {
		if isAttestation(d) || d.MediaType.IsSchema1() {
			continue
		}
		if d.Platform == nil {
			if len(index.Manifests) == 1 {
				return d, nil // its configuration will tell
			}
			there = append(there, "unnamed")
			continue
		}
		if matches(*d.Platform, want) {
			return d, nil
		}
		if name := platformName(*d.Platform); !slices.Contains(there, name) {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return v1.Descriptor{}, api.Errorf(api.KindUnsupported, "its index lists no image")
	}
	const most = 20
	if len(there) > most {
		there = append(there[:most], "…")
	}
	err := api.Errorf(api.KindUnsupported, "it is not there for %s, only for %s", platformName(want), strings.Join(there, ", "))
	err.Candidates = there
	return v1.Descriptor{}, err
}

// isAttestation says whether an entry of an index is about another one, as
// BuildKit puts them there.
func isAttestation(d v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && d.Platform.OS == "unknown"
}

// matches says whether what is for has runs on want. Of variants only those are
// taken that every processor of the architecture has; an image that names no
// platform is taken at its word.
func matches(has, want v1.Platform) bool {
	if has.OS == "" && has.Architecture == "" {
		return true
	}
	if has.OS != want.OS || has.Architecture != want.Architecture {
		return false
	}
	switch has.Variant {
	case "", want.Variant:
		return true
	case "v1":
		return has.Architecture == "amd64"
	case "v8":
		return has.Architecture == "arm64"
	}
	return false
}

func platformName(p v1.Platform) string {
	parts := []string{p.OS, p.Architecture}
	if p.Variant != "" {
		parts = append(parts, p.Variant)
	}
	return clip(strings.Join(parts, "/"))
}

// parseConfig reads an image's configuration.
func parseConfig(b []byte) (*v1.ConfigFile, error) {
	if len(b) > maxManifest {
		return nil, fmt.Errorf("its configuration is larger than %d bytes", maxManifest)
	}
	c, err := v1.ParseConfigFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("its configuration cannot be read: %w", err)
	}
	return c, nil
}

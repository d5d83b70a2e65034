package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
)

// Annotations that name an image of a layout.
const (
	annotationName = "io.containerd.image.name"          // in full
	annotationRef  = "org.opencontainers.image.ref.name" // often the tag alone
)

// imageInLayout finds the image in an OCI layout.
func imageInLayout(c contents, index []byte, ref string, platform v1.Platform) (*Image, error) {
	if err := checkLayoutVersion(c); err != nil {
		return nil, err
	}
	doc, err := parseIndex(index)
	if err != nil {
		return nil, err
	}
	chosen, err := pick(layoutImages(doc.index, platform), ref)
	if err != nil {
		return nil, err
	}
	d := chosen.image
	document, err := layoutDocument(c, d)
	if err != nil {
		return nil, err
	}
	if document.index != nil {
		if d, err = choose(document.index, platform); err != nil {
			return nil, err
		}
		if document, err = layoutDocument(c, d); err != nil {
			return nil, err
		}
		if document.manifest == nil {
			return nil, api.Errorf(api.KindUnsupported, "its index leads to another index")
		}
	}
	image, err := layoutImage(c, document.manifest, platform)
	if err != nil {
		return nil, err
	}
	image.Reference, image.Digest, image.TargetDigest = chosen.reference(ref), d.Digest.String(), chosen.digest
	return image, nil
}

func checkLayoutVersion(c contents) error {
	b, err := small(c, "oci-layout")
	if err != nil {
		return fmt.Errorf("its oci-layout cannot be read: %w", err)
	}
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(b, &layout); err != nil {
		return fmt.Errorf("its oci-layout cannot be read: %w", err)
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return api.Errorf(api.KindUnsupported, "it is an OCI layout of version %q, this banger knows 1", clip(layout.Version))
	}
	return nil
}

// layoutImages lists the images of an index.json. What several entries say of
// one digest is one image; of entries with one name but several platforms, only
// those for ours count.
func layoutImages(index *v1.IndexManifest, platform v1.Platform) []named[v1.Descriptor] {
	var all []named[v1.Descriptor]
	at := map[string]int{}
	fits := false
	for _, d := range index.Manifests {
		fits = fits || d.Platform == nil || matches(*d.Platform, platform)
	}
	for _, d := range index.Manifests {
		if isAttestation(d) || fits && d.Platform != nil && !matches(*d.Platform, platform) {
			continue
		}
		digest := d.Digest.String()
		n, known := at[digest]
		if !known {
			n = len(all)
			at[digest] = n
			all = append(all, named[v1.Descriptor]{digest: digest, image: d})
		}
		for _, key := range []string{annotationName, annotationRef} {
			if name := d.Annotations[key]; name != "" {
				all[n].names = append(all[n].names, name)
			}
		}
	}
	return all
}

// layoutBlob is where a layout keeps what has a digest, which has been checked.
func layoutBlob(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func layoutDocument(c contents, d v1.Descriptor) (document, error) {
	b, err := smallBlob(c, "manifest", d)
	if err != nil {
		return document{}, err
	}
	return parseDocument(b, string(d.MediaType))
}

// smallBlob reads a blob whole and checks its digest.
func smallBlob(c contents, what string, d v1.Descriptor) ([]byte, error) {
	digest := d.Digest.String()
	b, err := small(c, layoutBlob(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("its %s %s is not in the archive", what, digest)
	}
	if err != nil {
		return nil, err
	}
	if got := digestAs(digest, b); got != digest {
		return nil, fmt.Errorf("its %s is damaged: %w", what, &mismatchError{want: digest, got: got, wantSize: d.Size, gotBytes: int64(len(b))})
	}
	return b, nil
}

func layoutImage(c contents, m *v1.Manifest, platform v1.Platform) (*Image, error) {
	b, err := smallBlob(c, "configuration", m.Config)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(b)
	if err != nil {
		return nil, err
	}
	image := &Image{ConfigDigest: m.Config.Digest.String()}
	if err := image.setConfig(config, platform); err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		mediaType, err := layerType(l)
		if err != nil {
			return nil, err
		}
		layer, err := layerIn(c, layoutBlob(l.Digest.String()), l.Digest.String(), l.Size)
		if err != nil {
			return nil, err
		}
		layer.MediaType = mediaType
		image.Layers = append(image.Layers, layer)
	}
	return image, image.setDiffIDs(config)
}

// layerIn gives a member of an archive as a layer. A size of -1 is not known.
func layerIn(c contents, name, digest string, size int64) (Layer, error) {
	open := func() (io.ReadCloser, error) {
		r, has, err := c.open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("its layer %s is not in the archive", clip(name))
		}
		if err != nil {
			return nil, err
		}
		if size >= 0 && has != size {
			_ = r.Close()
			return nil, fmt.Errorf("its layer %s has %d bytes, not %d", clip(name), has, size)
		}
		return newVerifier(r, digest, has, r.Close, func(m *mismatchError) error {
			return api.Errorf(api.KindInvalid, "cannot read layer %s: it is damaged, or has changed meanwhile: %w", clip(name), m)
		}), nil
	}
	r, err := open()
	if err != nil {
		return Layer{}, err
	}
	has := r.(*verifier).size
	return Layer{Digest: digest, Size: has, Open: open}, r.Close()
}

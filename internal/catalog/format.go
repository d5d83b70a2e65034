package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/bangervm/banger/internal/signature"
)

// Version is the generation of the format that Parse takes.
const Version = 1

// MaxBytes bounds a catalog, in bytes.
const MaxBytes = 4 << 20

// Catalog is a list of images and kernels.
type Catalog struct {
	Version     int    `json:"catalog_version"`
	Description string `json:"description,omitempty"`
	// PublicKey is the key that every bundle of the catalog must be signed by.
	PublicKey string  `json:"public_key,omitempty"`
	Images    []Entry `json:"images,omitempty"`
	Kernels   []Entry `json:"kernels,omitempty"`
}

// Entry is one thing that can be had by its name.
type Entry struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Kernel is the name of the kernel an image boots; empty means the default.
	Kernel string `json:"kernel,omitempty"`
	// Sources are tried in order: the next where one cannot work on this host.
	Sources []Source `json:"sources"`
}

// The kinds of sources.
const (
	KindDebian = "debian" // packages of the Debian archive
	KindOCI    = "oci"    // a registry's reference; images only
	KindBundle = "bundle" // a bundle of banger
	KindFile   = "file"   // what banger kernel import takes; kernels only
)

// Source is one way to have a thing. Of the pointers the one of its kind is set;
// none where this banger does not know the kind.
type Source struct {
	Kind string
	Arch string // as Go says it, for example amd64; empty is any

	Debian *Debian
	OCI    *OCI
	Bundle *Download
	File   *Download
}

// Debian is a set of packages.
type Debian struct {
	Suite    string   `json:"suite"`
	Variant  string   `json:"variant,omitempty"` // as mmdebstrap says it; empty is minbase
	Packages []string `json:"packages"`
	// Keys are fingerprints of the keys the suite's lists are signed by: the host
	// needs one of them.
	Keys []string `json:"keys,omitempty"`
	// Env is what commands in the image get.
	Env []string `json:"env,omitempty"`
	// TreeBytes is about what the unpacked tree takes while it is built,
	// ImageBytes what the result takes; zero is not known.
	TreeBytes  int64 `json:"tree_bytes,omitempty"`
	ImageBytes int64 `json:"image_bytes,omitempty"`
}

// OCI is an image in a registry.
type OCI struct {
	Reference string `json:"reference"`
}

// Download is a file at a URL, which may be relative to the catalog's.
type Download struct {
	URL       string `json:"url"`
	Digest    string `json:"digest"` // sha256:… of the file
	SizeBytes int64  `json:"size_bytes,omitempty"`
}

// common are the fields of every source.
type common struct {
	Kind string `json:"kind"`
	Arch string `json:"arch,omitempty"`
}

// UnmarshalJSON reads the fields of the source's kind and no others; of a kind it
// does not know it reads nothing more.
func (s *Source) UnmarshalJSON(b []byte) error {
	var c common
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	*s = Source{Kind: c.Kind, Arch: c.Arch}
	switch c.Kind {
	case KindDebian:
		var v struct {
			common
			Debian
		}
		err := strict(b, &v)
		s.Debian = &v.Debian
		return err
	case KindOCI:
		var v struct {
			common
			OCI
		}
		err := strict(b, &v)
		s.OCI = &v.OCI
		return err
	case KindBundle, KindFile:
		var v struct {
			common
			Download
		}
		err := strict(b, &v)
		if s.Bundle = &v.Download; c.Kind == KindFile {
			s.Bundle, s.File = nil, s.Bundle
		}
		return err
	}
	return nil
}

// MarshalJSON is the inverse of UnmarshalJSON.
func (s Source) MarshalJSON() ([]byte, error) {
	c := common{s.Kind, s.Arch}
	switch {
	case s.Debian != nil:
		return json.Marshal(struct {
			common
			Debian
		}{c, *s.Debian})
	case s.OCI != nil:
		return json.Marshal(struct {
			common
			OCI
		}{c, *s.OCI})
	case s.Bundle != nil:
		return json.Marshal(struct {
			common
			Download
		}{c, *s.Bundle})
	case s.File != nil:
		return json.Marshal(struct {
			common
			Download
		}{c, *s.File})
	}
	return json.Marshal(c)
}

func strict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// Parse reads a catalog. Unknown kinds of sources are kept as such; everything
// else that is not in the format is an error that says what and where.
func Parse(b []byte) (Catalog, error) {
	if len(b) > MaxBytes {
		return Catalog{}, fmt.Errorf("it has more than %d bytes", MaxBytes)
	}
	if !utf8.Valid(b) {
		return Catalog{}, errors.New("it is not UTF-8 text")
	}
	var version struct {
		Version int `json:"catalog_version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return Catalog{}, fmt.Errorf("it is no catalog: %w", err)
	}
	switch {
	case version.Version < 1:
		return Catalog{}, errors.New("it is no catalog: no catalog_version")
	case version.Version > Version:
		return Catalog{}, fmt.Errorf("it is for a newer banger (catalog version %d, this one knows %d)", version.Version, Version)
	}
	var c Catalog
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Catalog{}, err
	}
	if c.PublicKey != "" {
		if _, err := signature.ParseKey(c.PublicKey); err != nil {
			return Catalog{}, fmt.Errorf("public_key: %w", err)
		}
	}
	if err := checkEntries("images", c.Images); err != nil {
		return Catalog{}, err
	}
	return c, checkEntries("kernels", c.Kernels)
}

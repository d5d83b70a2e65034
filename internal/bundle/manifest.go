package bundle

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Version is the generation of the format that Write writes and Read takes.
const Version = 1

// manifestName is the first member of every bundle.
const manifestName = "manifest.json"

// blockSize is the grain in which data is told from zeros, in bytes.
const blockSize = 4096

// Bounds of what Read takes.
const (
	maxManifest = 4 << 20
	maxMembers  = 64
)

// Manifest is the first member of a bundle. It says what the others are.
type Manifest struct {
	Version int `json:"bundle_version"`
	// Kind says what the bundle holds, for example image.
	Kind string `json:"kind"`
	// Content is the description by whoever the kind belongs to.
	Content json.RawMessage `json:"content"`
	// Members are all members behind the manifest, in their order.
	Members []Member `json:"members"`
}

// Member is one file of a bundle.
type Member struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
	// DataBytes is what of it is not zeros: its blocks of 4096 bytes that hold
	// another byte than zero, the last one as long as it is.
	DataBytes int64  `json:"data_bytes"`
	Digest    string `json:"digest"` // sha256:… of its content, zeros included
}

// DataBytes is what all members together take on a disk that stores no zeros.
func (m Manifest) DataBytes() int64 {
	var n int64
	for _, f := range m.Members {
		n += f.DataBytes
	}
	return n
}

// Has says whether the bundle holds a member.
func (m Manifest) Has(name string) bool {
	for _, f := range m.Members {
		if f.Name == name {
			return true
		}
	}
	return false
}

// Rule is one member that a reader takes.
type Rule struct {
	Name string
	// Group ties members together that come all or not at all; those of the
	// empty group must come.
	Group string
	// MaxBytes bounds its size, zeros included.
	MaxBytes int64
	// Discard verifies the member and keeps nothing of it.
	Discard bool
}

// parseManifest checks that a manifest is one of the kind and that its members
// are ones the rules take, in the rules' order.
func parseManifest(b []byte, kind string, rules []Rule) (Manifest, error) {
	// A newer version may have other fields: it is looked for first.
	var version struct {
		Version int `json:"bundle_version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return Manifest{}, fmt.Errorf("its manifest is corrupt: %w", err)
	}
	switch {
	case version.Version < 1:
		return Manifest{}, errors.New("its manifest is corrupt: no bundle_version")
	case version.Version > Version:
		return Manifest{}, fmt.Errorf("it was written by a newer banger (bundle version %d, this one knows %d)", version.Version, Version)
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("its manifest is corrupt: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Manifest{}, errors.New("its manifest is corrupt: something follows it")
	}
	var content bytes.Buffer
	if err := json.Compact(&content, m.Content); err != nil || content.Len() == 0 {
		return Manifest{}, errors.New("its manifest is corrupt: no content")
	}
	m.Content = content.Bytes()
	if m.Kind != kind {
		return Manifest{}, fmt.Errorf("it is a bundle of kind %.40q, not %q", m.Kind, kind)
	}
	if len(m.Members) > maxMembers {
		return Manifest{}, fmt.Errorf("its manifest names %d members, more than %d", len(m.Members), maxMembers)
	}
	return m, checkMembers(m.Members, rules)
}

func checkMembers(members []Member, rules []Rule) error {
	missing := map[string]string{} // group → a member of it that is not there
	present := map[string]string{} // group → a member of it that is
	for _, r := range rules {
		if len(members) == 0 || members[0].Name != r.Name {
			missing[r.Group] = r.Name
			continue
		}
		m := members[0]
		members = members[1:]
		present[r.Group] = r.Name
		switch {
		case m.SizeBytes < 0 || m.SizeBytes > r.MaxBytes:
			return fmt.Errorf("member %q has %d bytes, more than the %d allowed", m.Name, m.SizeBytes, r.MaxBytes)
		case m.DataBytes < 0 || m.DataBytes > m.SizeBytes:
			return fmt.Errorf("member %q has %d bytes of data in %d bytes", m.Name, m.DataBytes, m.SizeBytes)
		case !isDigest(m.Digest):
			return fmt.Errorf("member %q has no sha256 digest, but %.80q", m.Name, m.Digest)
		}
	}
	if len(members) > 0 {
		return fmt.Errorf("member %.80q does not belong in it, not at that place, or not twice", members[0].Name)
	}
	for group, name := range missing {
		if other, ok := present[group]; group == "" {
			return fmt.Errorf("member %q is missing", name)
		} else if ok {
			return fmt.Errorf("member %q is missing, without which %q is of no use", name, other)
		}
	}
	return nil
}

// isDigest says whether a text is sha256: and 64 lower-case hex digits.
func isDigest(s string) bool {
	sum, ok := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(sum)
	return ok && err == nil && len(b) == 32 && strings.ToLower(sum) == sum
}

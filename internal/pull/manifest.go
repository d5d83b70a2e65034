package pull

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bangervm/banger/api"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 4 << 20

// WriteManifest writes the manifest of a folder, which must have none, and
// makes it last.
func WriteManifest(path string, manifest any) error {
	b, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadManifest reads the manifest of a noun at path. A missing one is an error
// that os.IsNotExist knows; one that parse cannot understand is of kind
// internal and names the file.
func ReadManifest[M any](noun, path string, parse func([]byte) (M, error)) (M, error) {
	var none M
	f, err := os.Open(path)
	if err != nil {
		return none, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return none, fmt.Errorf("cannot read %s: %w", path, err)
	}
	m, err := parse(b)
	if err != nil {
		return none, api.Errorf(api.KindInternal, "cannot read %s manifest %s: %w", noun, path, err)
	}
	return m, nil
}

// DecodeManifest parses b into m, whose version is *version afterwards and may
// be newest at the most. What else m must hold is for the noun to check.
func DecodeManifest(b []byte, m any, version *int, newest int) error {
	if len(b) > maxManifest {
		return fmt.Errorf("it is larger than %d bytes", maxManifest)
	}
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("it is corrupt: %w", err)
	}
	switch {
	case *version < 1:
		return errors.New("it is corrupt: no version")
	case *version > newest:
		return fmt.Errorf("it was written by a newer banger (version %d)", *version)
	}
	return nil
}

package guestbin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
)

//go:embed embed
var files embed.FS

// maxSize bounds the uncompressed binary, in bytes.
const maxSize = 256 << 20

// Binary is the guest binary for one architecture.
type Binary struct {
	// Build is a digest of the binary, 16 characters of hex: two binaries with
	// the same build are the same.
	Build      string
	compressed []byte
}

// Open finds the guest binary for the host's architecture. An error is of kind
// unavailable: this binary was built without it.
func Open() (Binary, error) {
	b, err := files.ReadFile("embed/banger-guest-" + runtime.GOARCH + ".zst")
	if err != nil {
		return Binary{}, api.Errorf(api.KindUnavailable, "cannot use the guest binary: it was not built in").
			WithHint("make build")
	}
	sum := sha256.Sum256(b)
	return Binary{Build: hex.EncodeToString(sum[:8]), compressed: b}, nil
}

// Bytes gives the binary, uncompressed.
func (b Binary) Bytes() ([]byte, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSize))
	if err != nil {
		return nil, fmt.Errorf("cannot unpack the guest binary: %w", err)
	}
	defer d.Close()
	out, err := d.DecodeAll(b.compressed, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot unpack the guest binary: %w", err)
	}
	return out, nil
}

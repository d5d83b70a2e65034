package signature

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"aead.dev/minisign"

	"github.com/bangervm/banger/api"
)

// Suffix is what the name of a signature has behind the name of its file.
const Suffix = ".minisig"

// MaxBytes bounds a signature and a key, in bytes.
const MaxBytes = 4096

// Key is a public key: who made a signature.
type Key struct{ key minisign.PublicKey }

// ParseKey reads a public key: the text of a minisign.pub, or its second line
// alone.
func ParseKey(text string) (Key, error) {
	var k Key
	if len(text) > MaxBytes {
		return k, fmt.Errorf("a public key has no %d bytes", len(text))
	}
	if err := k.key.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
		return k, fmt.Errorf("%.80q is no minisign public key like RWQ…, 56 characters long", text)
	}
	return k, nil
}

// String is the key in one line, as ParseKey takes it.
func (k Key) String() string { return k.key.String() }

// ID is the key's short name, as minisign prints it.
func (k Key) ID() string { return id(k.key.ID()) }

// Equal says whether two keys are the same.
func (k Key) Equal(other Key) bool { return k.key.Equal(other.key) }

func id(n uint64) string { return fmt.Sprintf("%016X", n) }

// Verify reads r to its end and checks that text is the key's signature of it.
// what names the file in errors. An error of kind denied means that the
// signature is not good; any other comes from reading.
func Verify(what string, r io.Reader, text []byte, key Key) error {
	var s minisign.Signature
	switch err := s.UnmarshalText(text); {
	case len(text) > MaxBytes:
		return denied(what, "its signature has %d bytes, more than %d", len(text), MaxBytes)
	case err != nil:
		return denied(what, "its signature is not one of minisign")
	case s.KeyID != key.key.ID():
		return denied(what, "it is signed by the key %s, not by the trusted %s", id(s.KeyID), key.ID())
	case s.Algorithm != minisign.HashEdDSA:
		// It is over the file itself, which would have to fit into memory.
		return denied(what, "its signature is of minisign's old kind, without a hash")
	}
	m := minisign.NewReader(r)
	if _, err := io.CopyBuffer(io.Discard, onlyReader{m}, make([]byte, 1<<20)); err != nil {
		return err
	}
	if !m.Verify(key.key, text) {
		return denied(what, "its signature by the key %s does not fit it: one of the two was changed", key.ID())
	}
	return nil
}

// SignedAt is when a verified signature says it was made, by its trusted comment,
// as minisign writes it unless told another; the zero time where it does not say.
func SignedAt(text []byte) time.Time {
	var s minisign.Signature
	if s.UnmarshalText(text) != nil {
		return time.Time{}
	}
	for field := range strings.FieldsSeq(s.TrustedComment) {
		if seconds, ok := strings.CutPrefix(field, "timestamp:"); ok {
			// Up to the year 9999, which is as far as times are written.
			if n, err := strconv.ParseInt(seconds, 10, 64); err == nil && n > 0 && n < 253402300800 {
				return time.Unix(n, 0).UTC()
			}
			return time.Time{}
		}
	}
	return time.Time{}
}

// Unsigned is the error for a file that must be signed by the key and is not.
func Unsigned(what string, key Key) error {
	return denied(what, "it is not signed, and must be by the key %s", key.ID())
}

func denied(what, format string, args ...any) error {
	return api.Errorf(api.KindDenied, "cannot trust %s: %s", what, fmt.Sprintf(format, args...))
}

// onlyReader hides other methods, so that copies use their own buffer.
type onlyReader struct{ io.Reader }

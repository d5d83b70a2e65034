package signature

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"aead.dev/minisign"

	"github.com/bangervm/banger/api"
)

// SecretKey makes signatures.
type SecretKey struct{ key minisign.PrivateKey }

// LoadSecretKey reads a secret key made by minisign -G. Where it is encrypted,
// password is asked for the password, once; a wrong one is an error of kind
// denied. The decryption takes a second and 1 GiB of memory: minisign's own
// choice.
func LoadSecretKey(path string, password func() (string, error)) (SecretKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return SecretKey{}, api.Errorf(kindOf(err), "cannot read the signing key: %w", err).WithHint("banger image bundle --help")
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return SecretKey{}, api.Errorf(api.KindInternal, "cannot read the signing key %s: %w", path, err)
	}
	if len(b) > MaxBytes {
		return SecretKey{}, notAKey(path)
	}
	var k SecretKey
	if !minisign.IsEncrypted(trimEnd(b)) {
		if err := k.key.UnmarshalText(trimEnd(b)); err != nil {
			return SecretKey{}, notAKey(path)
		}
		return k, nil
	}
	secret, err := password()
	if err != nil {
		return SecretKey{}, err
	}
	if k.key, err = minisign.DecryptKey(secret, trimEnd(b)); err != nil {
		return SecretKey{}, api.Errorf(api.KindDenied, "cannot read the signing key %s: the password is wrong, or the file is damaged", path)
	}
	return k, nil
}

func notAKey(path string) error {
	return api.Errorf(api.KindInvalid, "cannot read the signing key %s: it is no secret key of minisign", path).WithHint("banger image bundle --help")
}

// trimEnd takes line ends off, which the library would decode.
func trimEnd(b []byte) []byte { return []byte(strings.TrimRight(string(b), "\r\n")) }

// Public is the key that checks what k signs.
func (k SecretKey) Public() Key { return Key{k.key.Public().(minisign.PublicKey)} }

// Sign reads r to its end and gives the text of its signature. name and now go
// into it, signed as well; nobody relies on them.
func (k SecretKey) Sign(r io.Reader, name string, now time.Time) ([]byte, error) {
	m := minisign.NewReader(r)
	if _, err := io.CopyBuffer(io.Discard, onlyReader{m}, make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	if strings.ContainsAny(name, "\r\n") {
		name = "file"
	}
	trusted := fmt.Sprintf("timestamp:%d\tfile:%s\thashed", now.Unix(), name)
	return m.SignWithComments(k.key, trusted, "signature of banger, to be checked by minisign"), nil
}

func kindOf(err error) api.Kind {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return api.KindNotFound
	case errors.Is(err, os.ErrPermission):
		return api.KindDenied
	}
	return api.KindInternal
}

package debian

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/bangervm/banger/api"
)

// maxKeyring bounds a keyring, in bytes.
const maxKeyring = 4 << 20

// CheckKeys looks whether the keyring at path, else Keyring, has one of the
// keys, given by fingerprint, that a suite's lists are signed by. It says
// unsupported in words where it has none: apt would fetch the lists and then
// refuse them. Without any keys there is nothing to look for.
func CheckKeys(path, suite string, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	if path == "" {
		path = Keyring
	}
	f, err := os.Open(path)
	if err != nil {
		return api.Errorf(api.KindUnavailable, "cannot verify Debian %s: %w", suite, err).WithHint("sudo apt-get install debian-archive-keyring")
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyring+1))
	if err != nil {
		return fmt.Errorf("cannot verify Debian %s: %w", suite, err)
	}
	has, err := fingerprints(b)
	if err != nil {
		return api.Errorf(api.KindUnavailable, "cannot verify Debian %s: cannot read %s: %w", suite, path, err).
			WithHint("sudo apt-get install --reinstall debian-archive-keyring")
	}
	for _, k := range keys {
		if slices.Contains(has, k) {
			return nil
		}
	}
	return api.Errorf(api.KindUnsupported, "cannot verify Debian %s: %s has none of the keys it is signed by (%s): the host's keys are older than it", suite, path, strings.Join(keys, ", ")).
		WithHint("sudo apt-get install debian-archive-keyring")
}

// fingerprints lists the version 4 keys and subkeys of an OpenPGP keyring (RFC
// 4880, sections 4.2 and 12.2).
func fingerprints(b []byte) ([]string, error) {
	var list []string
	if len(b) > maxKeyring {
		return nil, fmt.Errorf("it has more than %d bytes", maxKeyring)
	}
	for len(b) > 0 {
		tag, body, rest, err := packet(b)
		if err != nil {
			return nil, err
		}
		b = rest
		if (tag == 6 || tag == 14) && len(body) > 0 && body[0] == 4 && len(body) <= 0xffff {
			sum := sha1.New()
			sum.Write([]byte{0x99, byte(len(body) >> 8), byte(len(body))})
			sum.Write(body)
			list = append(list, strings.ToUpper(hex.EncodeToString(sum.Sum(nil))))
		}
	}
	return list, nil
}

// packet splits the first packet off. Those whose length is not said at once do
// not come in keyrings.
func packet(b []byte) (tag byte, body, rest []byte, err error) {
	bad := errors.New("it is no OpenPGP keyring")
	head, b := b[0], b[1:]
	if head&0x80 == 0 {
		return 0, nil, nil, bad
	}
	var n, skip int
	switch {
	case head&0x40 != 0: // the new format
		tag = head & 0x3f
		switch {
		case len(b) >= 1 && b[0] < 192:
			n, skip = int(b[0]), 1
		case len(b) >= 2 && b[0] < 224:
			n, skip = (int(b[0])-192)<<8+int(b[1])+192, 2
		case len(b) >= 5 && b[0] == 255:
			n, skip = int(binary.BigEndian.Uint32(b[1:])), 5
		default:
			return 0, nil, nil, bad
		}
	default:
		tag = head >> 2 & 0xf
		switch kind := head & 3; {
		case kind == 0 && len(b) >= 1:
			n, skip = int(b[0]), 1
		case kind == 1 && len(b) >= 2:
			n, skip = int(binary.BigEndian.Uint16(b)), 2
		case kind == 2 && len(b) >= 4:
			n, skip = int(binary.BigEndian.Uint32(b)), 4
		default:
			return 0, nil, nil, bad
		}
	}
	if n > len(b)-skip {
		return 0, nil, nil, bad
	}
	return tag, b[skip : skip+n], b[skip+n:], nil
}

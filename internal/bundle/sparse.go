package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

var zeros [64 << 10]byte

// isZero says whether all of b, at most 64 KiB, is zeros.
func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// copySparse copies a member's bytes to w, leaving out blocks of zeros, and
// checks them against what the manifest says; w may be nil. It sets no size.
// wrote says whether the error is one of writing.
func copySparse(w io.WriterAt, r io.Reader, m Member) (wrote bool, err error) {
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	var at, data int64
	for at < m.SizeBytes {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), m.SizeBytes-at)])
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the bundle is cut short in it")
			}
			return false, invalid(fmt.Errorf("member %q: %w", m.Name, err))
		}
		sum.Write(buf[:n])
		for from := 0; from < n; {
			to := run(buf[:n], from)
			if isZero(buf[from:min(from+blockSize, n)]) {
				from = to
				continue
			}
			if data += int64(to - from); data > m.DataBytes {
				return false, invalid(fmt.Errorf("member %q holds more than the %d bytes of data its manifest says", m.Name, m.DataBytes))
			}
			if w != nil {
				if _, err := w.WriteAt(buf[from:to], at+int64(from)); err != nil {
					return true, err
				}
			}
			from = to
		}
		at += int64(n)
	}
	if d := digestOf(sum); d != m.Digest {
		return false, invalid(fmt.Errorf("member %q has the digest %s, its manifest says %s", m.Name, d, m.Digest))
	}
	if data != m.DataBytes {
		return false, invalid(fmt.Errorf("member %q holds %d bytes of data, its manifest says %d", m.Name, data, m.DataBytes))
	}
	return false, nil
}

// run is where the blocks that are zeros, or are not, as the one at from, end.
func run(b []byte, from int) int {
	zero := isZero(b[from:min(from+blockSize, len(b))])
	for from < len(b) && isZero(b[from:min(from+blockSize, len(b))]) == zero {
		from += blockSize
	}
	return min(from, len(b))
}

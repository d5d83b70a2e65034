package oci

import (
	_ "crypto/sha512" // sha512 digests are rare and allowed
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
)

// checkDigest says whether a digest is one that can be computed here.
func checkDigest(s string) error {
	d := digest.Digest(s)
	if len(s) > 200 || d.Validate() != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
		return fmt.Errorf("%q is no digest like sha256:…", clip(s))
	}
	return nil
}

// digestOf is the sha256 digest of some bytes.
func digestOf(b []byte) string { return digest.SHA256.FromBytes(b).String() }

// digestAs is the digest of some bytes with the algorithm of another digest.
func digestAs(like string, b []byte) string {
	algorithm, _, _ := strings.Cut(like, ":")
	return digest.Algorithm(algorithm).FromBytes(b).String()
}

// mismatchError is content that is not what its digest says.
type mismatchError struct {
	want, got          string
	wantSize, gotBytes int64
}

func (e *mismatchError) Error() string {
	if e.got == "" {
		return fmt.Sprintf("expected %d bytes of %s, but more came", e.wantSize, e.want)
	}
	if e.wantSize != e.gotBytes {
		return fmt.Sprintf("expected %d bytes of %s, but %d bytes of %s came", e.wantSize, e.want, e.gotBytes, e.got)
	}
	return fmt.Sprintf("expected %s, but %s came", e.want, e.got)
}

// verifier reads a blob and gives an error instead of io.EOF when it was not
// what its digest and size say.
type verifier struct {
	io.Reader
	digester digest.Digester
	want     string
	size     int64
	read     int64
	failed   func(*mismatchError) error // what the error is for the reader
	close    func() error
}

func newVerifier(r io.Reader, want string, size int64, closer func() error, failed func(*mismatchError) error) *verifier {
	return &verifier{Reader: r, digester: digest.Digest(want).Algorithm().Digester(), want: want, size: size, close: closer, failed: failed}
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.Reader.Read(p)
	_, _ = v.digester.Hash().Write(p[:n])
	v.read += int64(n)
	if v.read > v.size {
		return n, v.failed(&mismatchError{want: v.want, wantSize: v.size, gotBytes: v.read})
	}
	if err == io.EOF {
		if got := v.digester.Digest().String(); got != v.want || v.read != v.size {
			return n, v.failed(&mismatchError{want: v.want, got: got, wantSize: v.size, gotBytes: v.read})
		}
	}
	return n, err
}

func (v *verifier) Close() error { return v.close() }

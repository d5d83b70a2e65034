package layers

import (
	"archive/tar"
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// Zeros compress by zstd to a thirty thousandth: a layer of them is none the
// worse for it, and its file is a hole.
func TestALayerOfZerosIsNoBomb(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&h{Typeflag: tar.TypeReg, Name: "disk.img", Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(tw, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tw.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if ratio := size / b.Len(); ratio < 2000 {
		t.Fatalf("a ratio of %d proves nothing", ratio)
	}
	path := filepath.Join(t.TempDir(), "rootfs.ext4")
	bad := layer("zeros", b.Bytes())
	bad.DiffID = ""
	if _, err := Write(t.Context(), path, [16]byte{}, []Layer{bad}, Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("it takes %d bytes of the disk: %v", st.Blocks*512, err)
	}
}

// A diff id may be of sha512, as digests of OCI may.
func TestADiffIDOfSHA512(t *testing.T) {
	t.Parallel()
	good := stack(t, []m{file("a", "1")})[0]
	rc, _ := good.Open()
	b, _ := io.ReadAll(rc)
	sum := sha512.Sum512(b)
	good.DiffID = "sha512:" + hex.EncodeToString(sum[:])
	if _, err := write(t, []Layer{good}, Limits{}); err != nil {
		t.Error(err)
	}
	bad := good
	bad.DiffID = "sha512:" + strings.Repeat("0", 128)
	if _, err := write(t, []Layer{bad}, Limits{}); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "its uncompressed content is "+good.DiffID) {
		t.Errorf("got %v", err)
	}
}

// What our own disk says is not the layer's fault.
func TestAnErrorOfOurDiskIsInternal(t *testing.T) {
	t.Parallel()
	l := Layer{Name: "sha256:aa"}
	err := unpackError(t.Context(), l, fmt.Errorf("member %q: %w", "x", &os.PathError{Op: "write", Path: "rootfs.ext4", Err: unix.EIO}))
	if api.KindOf(err) != api.KindInternal || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("%s: %v", api.KindOf(err), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

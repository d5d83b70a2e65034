package ext4

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// maxSize is the largest file system Write makes, in bytes. It decides how much
// room is left for group descriptors, 256 KiB here, so it is not simply huge.
const maxSize = 256 << 30

// errStopped ends the conversion when the members' source failed; the source's
// own error is the one reported.
var errStopped = errors.New("stopped")

// Write creates the file path and fills it with an ext4 file system of the
// members that fill writes. A member's parent folders need not come before it.
// The file system is flagged read-only, has no journal and no free space beyond
// rounding; e2fsck finds nothing to remark. uuid names it.
//
// An error of fill is returned as it is. On any error the file is removed.
// fill runs on the caller's goroutine.
func Write(path string, uuid [16]byte, fill func(*tar.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if err := convert(f, fill); err != nil {
		return err
	}
	if err := finish(f, uuid); err != nil {
		return fmt.Errorf("cannot finish file system %s: %w", path, err)
	}
	return f.Sync()
}

// convert runs fill and the conversion side by side, so that the two overlap.
func convert(f *os.File, fill func(*tar.Writer) error) error {
	pr, pw := io.Pipe()
	converted := make(chan error, 1)
	go func() {
		err := convertTar(pr, f)
		// A writer still blocked must learn of it. After the end of the archive
		// the writer may still send padding, which is nobody's.
		if err != nil {
			_ = pr.CloseWithError(err)
		} else {
			_, _ = io.Copy(io.Discard, pr)
		}
		converted <- err
	}()

	bw := bufio.NewWriterSize(pw, 256<<10)
	tw := tar.NewWriter(bw)
	fillErr := fill(tw)
	if fillErr == nil {
		fillErr = tw.Close()
	}
	if fillErr == nil {
		fillErr = bw.Flush()
	}
	if fillErr != nil {
		_ = pw.CloseWithError(errStopped)
	} else {
		_ = pw.Close()
	}
	convErr := <-converted
	switch {
	case convErr != nil && !errors.Is(convErr, errStopped):
		return fmt.Errorf("cannot write file system: %w", convErr)
	case fillErr != nil:
		return fillErr
	}
	return nil
}

// convertTar is the library's conversion, kept from panicking: it was written
// for archives it trusts.
func convertTar(r io.Reader, f *os.File) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("archive cannot be converted: %v", p)
		}
	}()
	return tar2ext4.ConvertTarToExt4(r, f, tar2ext4.MaximumDiskSize(maxSize))
}

// UUID makes a file system's name out of a text.
func UUID(text string) [16]byte {
	sum := sha256.Sum256([]byte(text))
	u := [16]byte(sum[:16])
	u[6] = u[6]&0x0f | 0x80 // version 8: made by our own rule
	u[8] = u[8]&0x3f | 0x80
	return u
}

package release

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path"
	"regexp"
	"syscall"

	"github.com/klauspost/compress/gzip"

	"github.com/bangervm/banger/api"
)

// programMember is the program in an archive of the project's:
// release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64.
var programMember = regexp.MustCompile(`^firecracker(-v[0-9][0-9A-Za-z._-]{0,40})?$`)

// maxMembers bounds what is looked at of an archive.
const maxMembers = 1000

// extract puts the program into a new file: out of a gzipped tar, or what was
// fetched itself.
func extract(archive, program string) error {
	f, err := os.Open(archive)
	if err != nil {
		return cannot(err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	head, err := in.Peek(4)
	if err != nil {
		return api.Errorf(api.KindInvalid, "cannot use what was fetched: it has less than 4 bytes")
	}
	if string(head) == "\x7fELF" {
		return write(program, in)
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return api.Errorf(api.KindInvalid, "cannot use what was fetched: it is neither a program nor a gzipped archive")
	}
	members := tar.NewReader(io.LimitReader(z, 4*maxArchive))
	for range maxMembers {
		h, err := members.Next()
		switch {
		case errors.Is(err, io.EOF):
			return api.Errorf(api.KindInvalid, "cannot use what was fetched: the archive holds no firecracker")
		case err != nil:
			return api.Errorf(api.KindInvalid, "cannot read the archive that was fetched: %w", err)
		case h.Typeflag == tar.TypeReg && programMember.MatchString(path.Base(h.Name)) && path.Ext(h.Name) != ".debug":
			return write(program, members)
		}
	}
	return api.Errorf(api.KindInvalid, "cannot use what was fetched: the archive has more than %d members", maxMembers)
}

func write(program string, in io.Reader) error {
	f, err := os.OpenFile(program, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return cannot(err)
	}
	source := &source{r: in}
	n, err := io.Copy(f, io.LimitReader(source, maxProgram+1))
	switch {
	case source.err != nil:
		err = api.Errorf(api.KindInvalid, "cannot read the archive that was fetched: %w", source.err)
	case err == nil && n > maxProgram:
		err = api.Errorf(api.KindInvalid, "cannot use what was fetched: its program exceeds %d bytes", int64(maxProgram))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		return nil
	}
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	return cannot(err)
}

// source tells an error of reading from one of writing.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func digestOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

func cannot(err error) error {
	kind := api.KindInternal
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		kind = api.KindNoSpace
	}
	return api.Errorf(kind, "cannot install Firecracker: %w", err)
}

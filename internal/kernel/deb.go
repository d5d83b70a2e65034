package kernel

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"github.com/bangervm/banger/api"
)

// Bounds of a Debian package.
const (
	maxDebMembers = 16        // of the ar archive, up to the data
	maxControl    = 1 << 20   // of the control file, in bytes
	maxDictionary = 128 << 20 // of a decompressor, in bytes
	arHeader      = 60
)

// arMagic opens an ar archive.
const arMagic = "!<arch>\n"

// deb is a Debian package whose data is read as a tar archive.
type deb struct {
	control map[string]string // Package, Version, Architecture, Depends, …
	data    io.Reader         // the data, uncompressed
	close   func()
}

// openDeb reads a package up to its data (deb(5)): an ar archive of
// debian-binary, control.tar.* and data.tar.*, in this order.
func openDeb(r io.Reader) (*deb, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return nil, errors.New("it is no Debian package")
	}
	d := &deb{}
	for i := range maxDebMembers {
		name, body, err := nextMember(r)
		if err != nil {
			return nil, err
		}
		switch {
		case i == 0:
			if err := checkFormat(name, body); err != nil {
				return nil, err
			}
		case strings.HasPrefix(name, "control.tar") && d.control == nil:
			if d.control, err = readControl(name, body); err != nil {
				return nil, err
			}
		case strings.HasPrefix(name, "data.tar"):
			if d.control == nil {
				return nil, errors.New("its data comes before its control file")
			}
			d.data, d.close, err = decompressor(name, body)
			return d, err
		case !strings.HasPrefix(name, "_"):
			return nil, fmt.Errorf("it has the member %.16q, which no Debian package has", name)
		}
		if err := body.skip(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("it has no data within its first %d members", maxDebMembers)
}

// arBody is one member of an ar archive.
type arBody struct {
	r    io.Reader
	name string
	left int64
	odd  bool // a byte of padding follows
}

func (b *arBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if errors.Is(err, io.EOF) && b.left > 0 {
		err = fmt.Errorf("the package is cut short: %d bytes of %s are missing", b.left, b.name)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// skip goes on to the next member.
func (b *arBody) skip() error {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return err
	}
	if b.odd {
		var pad [1]byte
		if _, err := io.ReadFull(b.r, pad[:]); err != nil {
			return fmt.Errorf("the package is cut short after %s", b.name)
		}
	}
	return nil
}

func nextMember(r io.Reader) (string, *arBody, error) {
	var h [arHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return "", nil, errors.New("the package is cut short: it ends before its data")
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 62)
	if err != nil || string(h[58:]) != "`\n" {
		return "", nil, errors.New("the package is corrupt: an ar header is wrong")
	}
	return name, &arBody{r: r, name: name, left: int64(size), odd: size%2 == 1}, nil
}

func checkFormat(name string, body io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(body, 16))
	switch {
	case err != nil:
		return err
	case name != "debian-binary":
		return errors.New("it is no Debian package")
	case !strings.HasPrefix(string(b), "2."):
		return api.Errorf(api.KindUnsupported, "it is a Debian package of format %.8q, 2.0 is known", strings.TrimSpace(string(b)))
	}
	return nil
}

// decompressor gives a member uncompressed, by the suffix of its name.
func decompressor(name string, r io.Reader) (io.Reader, func(), error) {
	none := func() {}
	var err error
	switch {
	case strings.HasSuffix(name, ".tar"):
		return r, none, nil
	case strings.HasSuffix(name, ".gz"):
		r, err = gzip.NewReader(bufio.NewReaderSize(r, 64<<10))
	case strings.HasSuffix(name, ".xz"):
		r, err = xz.NewReader(bufio.NewReaderSize(r, 64<<10), maxDictionary)
	case strings.HasSuffix(name, ".zst"):
		z, zerr := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary))
		if zerr == nil {
			return z, z.Close, nil
		}
		err = zerr
	default:
		return nil, none, api.Errorf(api.KindUnsupported, "its member %.16q is compressed in an unknown way; xz, zst and gz are known", name)
	}
	if err != nil {
		return nil, none, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return r, none, nil
}

// readControl finds the control file and reads its fields.
func readControl(name string, body io.Reader) (map[string]string, error) {
	r, done, err := decompressor(name, body)
	if err != nil {
		return nil, err
	}
	defer done()
	tr := tar.NewReader(io.LimitReader(r, 16*maxControl))
	for {
		h, err := tr.Next()
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: it holds no control file (%w)", name, err)
		}
		if strings.TrimPrefix(h.Name, "./") != "control" || h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(tr, maxControl))
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, err)
		}
		return parseControl(string(b)), nil
	}
}

// parseControl reads the fields of one paragraph (deb-control(5)). Of a field
// of several lines it keeps the first.
func parseControl(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			continue
		}
		if k, v, ok := strings.Cut(line, ":"); ok {
			fields[k] = strings.TrimSpace(v)
		}
	}
	return fields
}

// installedBytes is what the package says its files take, 0 if it does not.
func (d *deb) installedBytes() int64 {
	kib, err := strconv.ParseInt(d.control["Installed-Size"], 10, 40)
	if err != nil || kib < 0 {
		return 0
	}
	return kib << 10
}

// dependsOnKernel is the package that one without a kernel of its own points
// at, if any: linux-image-amd64 is such a one.
func (d *deb) dependsOnKernel() string {
	for dep := range strings.SplitSeq(d.control["Depends"], ",") {
		if name, _, _ := strings.Cut(strings.TrimSpace(dep), " "); strings.HasPrefix(name, "linux-image-") && packageName(name) {
			return name
		}
	}
	return ""
}

// packageName says whether s can be the name of a package.
func packageName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("+-.", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

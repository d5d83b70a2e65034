package kernel

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bangervm/banger/api"
)

// fileKind is what a file is, by its beginning.
type fileKind string

// The kinds of file that a kernel is imported from, or may be mistaken for one.
const (
	kindUnknown fileKind = ""
	kindDeb     fileKind = "deb"
	kindBzImage fileKind = "bzimage"
	kindVMLinux fileKind = "vmlinux"
	kindOther   fileKind = "other" // a kernel of another machine
	kindPacked  fileKind = "packed"
)

// sniffBytes is how much of a file tells what it is.
const sniffBytes = headerSize

// sniff says what a file is, by its beginning.
func sniff(head []byte) fileKind {
	at := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case at(0, arMagic):
		return kindDeb
	case at(0, "\x7fELF"):
		return kindVMLinux
	case at(offHeaderMagic, "HdrS"):
		return kindBzImage
	case at(56, "ARM\x64"), at(56, "RSC\x05"):
		return kindOther
	case at(0, "\x1f\x8b"), at(0, "\x28\xb5\x2f\xfd"), at(0, "\xfd7zXZ\x00"), at(0, "BZh"):
		return kindPacked
	}
	return kindUnknown
}

// errNoKernel says that a file is no kernel, in words that help.
func errNoKernel(kind fileKind, head []byte) error {
	switch {
	case kind == kindOther && head[56] == 'A':
		return otherMachine("arm64")
	case kind == kindOther:
		return otherMachine("riscv64")
	case kind == kindPacked:
		return api.Errorf(api.KindInvalid, "it is compressed; uncompress it first")
	case bytes.HasPrefix(head, []byte("\xed\xab\xee\xdb")):
		return api.Errorf(api.KindUnsupported, "it is an RPM package; unpack it and give the folder")
	}
	return api.Errorf(api.KindInvalid, "it is neither a Debian package nor a bzImage nor a vmlinux")
}

// kernel writes vmlinux out of a kernel file, a bzImage or a vmlinux.
func (u *unpacker) kernel(name string, r io.Reader) error {
	if u.file != "" {
		return api.Errorf(api.KindInvalid, "it holds more than one kernel: %.80s and %.80s", u.file, name)
	}
	u.file = name
	f, err := os.OpenFile(u.dir.VMLinux(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	sum := sha256.New()
	version, err := convert(r, io.MultiWriter(f, sum))
	if err == nil && version == "" {
		var t traces
		t, err = scan(f, nil)
		version = t.version
	}
	if err == nil && firstWord(version) == "" {
		err = api.Errorf(api.KindInvalid, "it is no Linux kernel: it names no version")
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	u.release, u.source["version"] = firstWord(version), version
	u.digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return nil
}

// convert writes the vmlinux in or of a kernel file. A bzImage tells its version.
func convert(r io.Reader, w io.Writer) (version string, err error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(sniffBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	switch kind := sniff(head); kind {
	case kindBzImage:
		return ExtractVMLinux(br, w)
	case kindVMLinux:
		if err := copyVMLinux(br, w); err != nil {
			return "", fmt.Errorf("cannot copy vmlinux: %w", err)
		}
		return "", nil
	default:
		return "", errNoKernel(kind, head)
	}
}

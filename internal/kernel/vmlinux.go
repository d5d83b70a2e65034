package kernel

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// maxVMLinux bounds an uncompressed kernel, in bytes, whatever its header says.
const maxVMLinux = 512 << 20

// Where things stand in the header of a bzImage (Documentation/arch/x86/boot.rst
// of the kernel).
const (
	headerSize       = 0x400
	offSetupSects    = 0x1f1
	offBootFlag      = 0x1fe
	offHeaderMagic   = 0x202
	offVersion       = 0x206
	offKernelVersion = 0x20e
	offPayload       = 0x248
	offPayloadLength = 0x24c
)

// ExtractVMLinux reads a bzImage and writes the vmlinux in it to w,
// uncompressed, in one pass. It returns the kernel's version as the file tells
// it: "6.1.0-56-cloud-amd64 (builder) #1 SMP … Debian 6.1.192-2 (2026-11-16)";
// its first word, which is fit for a path, is what `uname -r` says.
func ExtractVMLinux(r io.Reader, w io.Writer) (version string, err error) {
	version, err = extract(r, w)
	if err != nil {
		return "", fmt.Errorf("cannot extract vmlinux: %w", err)
	}
	return version, nil
}

func extract(r io.Reader, w io.Writer) (string, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(br, head); err != nil {
		return "", fmt.Errorf("not a bzImage: %w", err)
	}
	le := binary.LittleEndian
	if string(head[offHeaderMagic:offHeaderMagic+4]) != "HdrS" || le.Uint16(head[offBootFlag:]) != 0xaa55 {
		return "", errors.New("not a bzImage: no boot header")
	}
	if v := le.Uint16(head[offVersion:]); v < 0x208 {
		return "", fmt.Errorf("boot protocol %d.%02d is too old, 2.08 is needed", v>>8, v&0xff)
	}
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	length := int64(le.Uint32(head[offPayloadLength:]))
	start := (sects+1)*512 + int64(le.Uint32(head[offPayload:]))
	versionAt := int64(le.Uint16(head[offKernelVersion:])) + 0x200
	if start < headerSize || length < 16 {
		return "", fmt.Errorf("boot header is wrong: payload of %d bytes at %d", length, start)
	}

	// The version stands between the header and the payload.
	var version string
	pos := int64(headerSize)
	if versionAt >= pos && versionAt < start {
		if err := skip(br, versionAt-pos); err != nil {
			return "", err
		}
		b, err := br.Peek(int(min(256, start-versionAt)))
		if err != nil {
			return "", fmt.Errorf("file ends before its version: %w", err)
		}
		version = printable(b)
		pos = versionAt
	}
	if firstWord(version) == "" {
		return "", errors.New("boot header names no version")
	}
	if err := skip(br, start-pos); err != nil {
		return "", err
	}
	payload := bufio.NewReaderSize(io.LimitReader(br, length), 64<<10)
	out := &elfChecker{w: w, left: maxVMLinux}
	if err := decompress(payload, length, out); err != nil {
		return "", err
	}
	return version, out.check()
}

func skip(br *bufio.Reader, n int64) error {
	if _, err := io.CopyN(io.Discard, br, n); err != nil {
		return fmt.Errorf("file ends before its payload: %w", err)
	}
	return nil
}

// printable is the text at the beginning of b, up to what is no text.
func printable(b []byte) string {
	i := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' || r > '~' })
	if i < 0 {
		i = len(b)
	}
	return string(b[:i])
}

// firstWord is the release a version begins with. It becomes part of paths, so
// it has no other characters than releases have; else it is empty.
func firstWord(version string) string {
	word, _, _ := strings.Cut(version, " ")
	if len(word) > 64 || strings.HasPrefix(word, ".") {
		return ""
	}
	for _, c := range []byte(word) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(".-+_~", c) < 0 {
			return ""
		}
	}
	return word
}

// decompress writes the payload of length bytes, by whichever method it was
// compressed. All but gzip end with the uncompressed size in four bytes.
func decompress(payload *bufio.Reader, length int64, w io.Writer) error {
	magic, err := payload.Peek(6)
	if err != nil {
		return fmt.Errorf("file ends in its payload: %w", err)
	}
	body := io.LimitReader(payload, length-4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x02, 0x21, 0x4c, 0x18}):
		return wrap("lz4", unlz4(body, w))
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(payload)
		if err != nil {
			return wrap("gzip", err)
		}
		z.Multistream(false)
		_, err = io.Copy(w, z)
		return wrap("gzip", err)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return wrap("zstd", err)
		}
		defer z.Close()
		_, err = io.Copy(w, z)
		return wrap("zstd", err)
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		z, err := xz.NewReader(body, 64<<20)
		if err != nil {
			return wrap("xz", err)
		}
		z.Multistream(false)
		_, err = io.Copy(w, z)
		return wrap("xz", err)
	case bytes.HasPrefix(magic, []byte("\x7fELF")):
		_, err := io.Copy(w, payload)
		return wrap("uncompressed", err)
	}
	return fmt.Errorf("compressed in an unknown way (%x); lz4, gzip, zstd and xz are known", magic)
}

func wrap(method string, err error) error {
	if err != nil {
		return fmt.Errorf("%s payload: %w", method, err)
	}
	return nil
}

// lz4Block is the size of an uncompressed block in lz4's legacy frame.
const lz4Block = 8 << 20

// unlz4 reads lz4's legacy frame, the one the kernel's build makes: a magic
// number, then blocks, each behind its compressed length.
func unlz4(r io.Reader, w io.Writer) error {
	var word [4]byte
	if _, err := io.ReadFull(r, word[:]); err != nil {
		return err
	}
	out := make([]byte, lz4Block)
	var in []byte
	for {
		if _, err := io.ReadFull(r, word[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		n := int(binary.LittleEndian.Uint32(word[:]))
		if n <= 0 || n > lz4.CompressBlockBound(lz4Block) {
			return fmt.Errorf("block of %d bytes", n)
		}
		if cap(in) < n {
			in = make([]byte, n)
		}
		in = in[:n]
		if _, err := io.ReadFull(r, in); err != nil {
			return fmt.Errorf("block of %d bytes: %w", n, err)
		}
		m, err := lz4.UncompressBlock(in, out)
		if err != nil {
			return err
		}
		if _, err := w.Write(out[:m]); err != nil {
			return err
		}
	}
}

// elfChecker passes a vmlinux on, up to left bytes, and checks that it is one.
type elfChecker struct {
	w    io.Writer
	left int64
	head []byte
}

func (e *elfChecker) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, fmt.Errorf("vmlinux is larger than %d bytes", int64(maxVMLinux))
	}
	e.left -= int64(len(p))
	if need := 20 - len(e.head); need > 0 {
		e.head = append(e.head, p[:min(need, len(p))]...)
	}
	return e.w.Write(p)
}

func (e *elfChecker) check() error {
	if err := checkELF(e.head); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return nil
}

package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bangervm/banger/api"
)

// Of an ELF file for 64-bit little-endian machines (elf(5)).
const (
	elfHeader  = 64
	elfSegment = 56
	elfSection = 64
	// maxSegments bounds the program headers of a kernel, which has five.
	maxSegments = 64
)

// otherMachine says that a kernel is for a machine that guests are not.
func otherMachine(machine string) error {
	return api.Errorf(api.KindUnsupported, "the kernel is for %s, guests on this host are x86-64", machine)
}

// machineName is how people call an ELF machine.
func machineName(m elf.Machine) string {
	switch m {
	case elf.EM_AARCH64:
		return "arm64 (ELF machine 183)"
	case elf.EM_386:
		return "i386 (ELF machine 3)"
	}
	return fmt.Sprintf("ELF machine %d (%s)", uint16(m), m)
}

// checkELF looks whether the beginning of a file is that of an x86-64 kernel.
func checkELF(head []byte) error {
	switch {
	case len(head) < 20 || !bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return errors.New("it is no ELF file")
	case head[elf.EI_DATA] == byte(elf.ELFDATA2MSB):
		return otherMachine(machineName(elf.Machine(binary.BigEndian.Uint16(head[18:]))))
	case elf.Machine(binary.LittleEndian.Uint16(head[18:])) != elf.EM_X86_64 || head[elf.EI_CLASS] != byte(elf.ELFCLASS64):
		return otherMachine(machineName(elf.Machine(binary.LittleEndian.Uint16(head[18:]))))
	}
	return nil
}

// copyVMLinux copies what a loader needs of a vmlinux: everything up to the end
// of its last segment. Symbols and what debuggers want, which can be ten times
// as much, lie behind it.
func copyVMLinux(r io.Reader, w io.Writer) error {
	head := make([]byte, elfHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return fmt.Errorf("it is cut short: %w", err)
	}
	if err := checkELF(head); err != nil {
		return err
	}
	le := binary.LittleEndian
	if t := elf.Type(le.Uint16(head[16:])); t != elf.ET_EXEC && t != elf.ET_DYN {
		return api.Errorf(api.KindInvalid, "it is an object file, no kernel")
	}
	n := int(le.Uint16(head[56:]))
	if le.Uint64(head[32:]) != elfHeader || le.Uint16(head[54:]) != elfSegment || n == 0 || n > maxSegments {
		return api.Errorf(api.KindInvalid, "it is no kernel: it has %d segments at %d", n, le.Uint64(head[32:]))
	}
	segments := make([]byte, n*elfSegment)
	if _, err := io.ReadFull(r, segments); err != nil {
		return fmt.Errorf("it is cut short: %w", err)
	}
	begin := uint64(elfHeader + len(segments))
	end := begin
	for s := segments; len(s) > 0; s = s[elfSegment:] {
		off, size := le.Uint64(s[8:]), le.Uint64(s[32:])
		if off > maxVMLinux || size > maxVMLinux || off+size > maxVMLinux {
			return fmt.Errorf("vmlinux is larger than %d bytes", int64(maxVMLinux))
		}
		end = max(end, off+size)
	}
	clear(head[40:48]) // the sections are left behind
	clear(head[58:64])
	if _, err := w.Write(append(head, segments...)); err != nil {
		return err
	}
	copied, err := io.CopyN(w, r, int64(end-begin))
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it is cut short: %d of %d bytes are there", int64(begin)+copied, end)
	}
	return err
}

// maxSectionNames bounds the names of an ELF file's sections, in bytes, counted
// once for each section.
const maxSectionNames = 64 << 20

// checkSections is for an ELF file, of 64 bits, before debug/elf reads it: that
// uncompresses the names of sections whatever becomes of them, and copies for each
// section what lies behind its name's beginning up to the next zero byte.
func checkSections(r io.ReaderAt) error {
	head, section := make([]byte, elfHeader), make([]byte, elfSection)
	if _, err := r.ReadAt(head, 0); err != nil {
		return fmt.Errorf("it is cut short: %w", err)
	}
	le := binary.LittleEndian
	at, n, names := le.Uint64(head[40:]), uint64(le.Uint16(head[60:])), uint64(le.Uint16(head[62:]))
	switch {
	case head[elf.EI_CLASS] != byte(elf.ELFCLASS64) || head[elf.EI_DATA] != byte(elf.ELFDATA2LSB):
		return errors.New("it is not for a machine of 64 bits")
	case at == 0 && n == 0:
		return nil
	case le.Uint16(head[58:]) != elfSection || names >= n || at > 1<<40:
		return errors.New("its section headers are wrong")
	}
	if _, err := r.ReadAt(section, int64(at+names*elfSection)); err != nil {
		return fmt.Errorf("it is cut short: %w", err)
	}
	if elf.SectionFlag(le.Uint64(section[8:]))&elf.SHF_COMPRESSED != 0 || le.Uint64(section[32:]) > maxSectionNames/n {
		return fmt.Errorf("the names of its %d sections are too long", n)
	}
	return nil
}

// xenEntry is the type of the note that says where QEMU enters a kernel
// (XEN_ELFNOTE_PHYS32_ENTRY of the kernel's include/xen/interface/elfnote.h).
const xenEntry = 18

// canPVH says whether a vmlinux has the entry by which QEMU starts one.
func canPVH(r io.ReaderAt) (bool, error) {
	if err := checkSections(r); err != nil {
		return false, err
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(p.Open(), 1<<20))
		if err != nil {
			return false, err
		}
		if hasNote(b, "Xen\x00", xenEntry) {
			return true, nil
		}
	}
	return false, nil
}

// hasNote looks for a note of the name and type among b.
func hasNote(b []byte, name string, typ uint32) bool {
	le := binary.LittleEndian
	pad := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(b) >= 12 {
		nameLen, dataLen := le.Uint32(b), le.Uint32(b[4:])
		t := le.Uint32(b[8:])
		b = b[12:]
		if pad(nameLen)+pad(dataLen) > uint64(len(b)) {
			return false
		}
		if t == typ && string(b[:nameLen]) == name {
			return true
		}
		b = b[pad(nameLen)+pad(dataLen):]
	}
	return false
}

// bannerStart begins what a kernel says first, its version in it.
const bannerStart = "Linux version "

// scanChunk is how much of a vmlinux is looked at at a time; what is looked for
// is shorter than scanOverlap.
const (
	scanChunk   = 4 << 20
	scanOverlap = 512
)

// traces are what a scan of a vmlinux found.
type traces struct {
	version string          // as ExtractVMLinux gives it; empty: none found
	config  int64           // where the configuration begins; 0: nowhere
	marks   map[string]bool // those of the asked that are there
}

// scan looks through a vmlinux for its version, its configuration and the marks;
// without marks it ends at the version.
func scan(f *os.File, marks []string) (traces, error) {
	t := traces{marks: map[string]bool{}}
	buf := make([]byte, scanChunk+scanOverlap)
	for at := int64(0); at < maxVMLinux; at += scanChunk {
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return t, err
		}
		b := buf[:n]
		if t.version == "" {
			t.version = findVersion(b)
		}
		if i := bytes.Index(b, []byte(configStart)); i >= 0 && t.config == 0 {
			t.config = at + int64(i+len(configStart))
		}
		for _, m := range marks {
			if !t.marks[m] && bytes.Contains(b, []byte(m)) {
				t.marks[m] = true
			}
		}
		if n < len(buf) || len(marks) == 0 && t.version != "" {
			break
		}
	}
	return t, nil
}

// maxBanners bounds how often what looks like a banner is looked at, in one chunk.
const maxBanners = 1000

// findVersion gives the version in the first banner among b.
func findVersion(b []byte) string {
	for range maxBanners {
		i := bytes.Index(b, []byte(bannerStart))
		if i < 0 {
			return ""
		}
		b = b[i+len(bannerStart):]
		// Behind the release stand the builder and, at last, the build's number.
		v := printable(b[:min(len(b), scanOverlap-len(bannerStart))])
		if w := firstWord(v); w != "" && w[0] >= '0' && w[0] <= '9' && strings.Contains(v, "(") {
			return v
		}
	}
	return ""
}

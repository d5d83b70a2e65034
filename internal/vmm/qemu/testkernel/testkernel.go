package testkernel

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// Program is the code of a kernel: 32-bit, no paging, loaded at 1 MiB
// and started by QEMU's PVH way, as Linux is. It runs in the real QEMU in a tenth
// of a second and needs nothing but QEMU.
type Program struct{ code []byte }

const (
	kernelAt = 0x100000
	counter  = 0x2000000 // a cell of memory that survives a reset
	// The registers of the microvm machine's ACPI device.
	sleepControl = 0xfea00200
	resetControl = 0xfea00202
)

func (p *Program) emit(b ...byte) *Program {
	p.code = append(p.code, b...)
	return p
}

func (p *Program) emit32(v uint32) *Program {
	p.code = binary.LittleEndian.AppendUint32(p.code, v)
	return p
}

// Print sends text to the serial port.
func (p *Program) Print(text string) *Program {
	const length = 22 // of what follows, up to the text
	at := uint32(kernelAt + headSize + len(p.code) + length)
	p.emit(0xbe).emit32(at)                              // mov esi, text
	p.emit(0xba).emit32(0x3f8)                           // mov edx, the port
	p.emit(0xac)                                         // next: lodsb
	p.emit(0x84, 0xc0)                                   // test al, al
	p.emit(0x0f, 0x84).emit32(uint32(3 + len(text) + 1)) // jz behind the text
	p.emit(0xee)                                         // out dx, al
	p.emit(0xeb, 0xf4)                                   // jmp next
	return p.emit([]byte(text)...).emit(0)
}

func (p *Program) store(at uint32, v byte) *Program {
	return p.emit(0xc6, 0x05).emit32(at).emit(v) // mov byte [at], v
}

// PowerOff, Reset and Halt end the program.
func (p *Program) PowerOff() *Program { return p.store(sleepControl, 0x34).Halt() }
func (p *Program) Reset() *Program    { return p.store(resetControl, 0x42).Halt() }
func (p *Program) Halt() *Program     { return p.emit(0xfa, 0xf4, 0xeb, 0xfc) } // cli; hlt; again

// FirstBoot prints the text and halts on the first boot; what follows runs after
// a reset.
func (p *Program) FirstBoot(text string) *Program {
	p.emit(0xff, 0x05).emit32(counter)         // inc dword [counter]
	p.emit(0x83, 0x3d).emit32(counter).emit(1) // cmp dword [counter], 1
	p.emit(0x0f, 0x85).emit32(0)               // jne behind
	from := len(p.code)
	p.Print(text).Halt()
	binary.LittleEndian.PutUint32(p.code[from-4:], uint32(len(p.code)-from))
	return p
}

// Forever begins again.
func (p *Program) Forever() *Program {
	return p.emit(0xe9).emit32(uint32(-int32(len(p.code) + 5))) // jmp to the start
}

// headSize is the length of ELF header, program headers and note.
const headSize = 64 + 2*56 + 24

// Write makes the ELF file.
func (p *Program) Write(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	entry := uint64(kernelAt + headSize)
	size := uint64(headSize + len(p.code))
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put([]uint16{2, 62}) // executable, x86-64
	put(uint32(1))
	put([]uint64{entry, 64, 0}) // entry, program headers, no sections
	put(uint32(0))
	put([]uint16{64, 56, 2, 64, 0, 0})
	header := func(kind, flags uint32, offset, n, align uint64) {
		put([]uint32{kind, flags})
		put([]uint64{offset, kernelAt + offset, kernelAt + offset, n, n, align})
	}
	header(1, 7, 0, size, 4096)  // load everything
	header(4, 4, 64+2*56, 24, 4) // the note
	put([]uint32{4, 8, 18})      // XEN_ELFNOTE_PHYS32_ENTRY
	b.WriteString("Xen\x00")
	put(entry)
	b.Write(p.code)
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

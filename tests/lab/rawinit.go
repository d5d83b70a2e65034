package main

import (
	"bytes"
	"encoding/binary"
)

// initProgram is an init made of system calls one after the other and nothing
// else, the least a guest can do: the floor that boots are measured against.
type initProgram struct {
	code, data []byte
	fixes      []fix
}

// fix is a place in code or data that is to hold the address of something in data.
type fix struct {
	inData bool
	at     int
	data   uint64
}

// arg is one argument of a system call: a number, or the address of data.
type arg struct {
	n       uint64
	pointer bool
}

func num(n uint64) arg { return arg{n: n} }

// text puts a string into the data.
func (p *initProgram) text(s string) arg {
	at := len(p.data)
	p.data = append(append(p.data, s...), 0)
	return arg{uint64(at), true}
}

// words puts an array of pointers, closed by a null one, into the data.
func (p *initProgram) words(texts ...string) arg {
	var pointers []arg
	for _, s := range texts {
		pointers = append(pointers, p.text(s))
	}
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	at := len(p.data)
	for _, a := range pointers {
		p.fixes = append(p.fixes, fix{true, len(p.data), a.n})
		p.data = append(p.data, make([]byte, 8)...)
	}
	p.data = append(p.data, make([]byte, 8)...)
	return arg{uint64(at), true}
}

// load sets the argument register of that place: rdi, rsi, rdx, r10, r8.
func (p *initProgram) load(place int, a arg) {
	opcodes := [][]byte{{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}}
	p.code = append(p.code, opcodes[place]...)
	if a.pointer {
		p.fixes = append(p.fixes, fix{false, len(p.code), a.n})
	}
	p.code = binary.LittleEndian.AppendUint64(p.code, a.n)
}

func (p *initProgram) syscall(nr uint32, args ...arg) {
	for i, a := range args {
		p.load(i, a)
	}
	p.number(nr)
}

// syscallResult is a call whose first argument is the result of the last.
func (p *initProgram) syscallResult(nr uint32, rest ...arg) {
	p.code = append(p.code, 0x48, 0x89, 0xc7) // mov rdi, rax
	for i, a := range rest {
		p.load(i+1, a)
	}
	p.number(nr)
}

func (p *initProgram) number(nr uint32) {
	p.code = binary.LittleEndian.AppendUint32(append(p.code, 0xb8), nr) // mov eax, nr
	p.code = append(p.code, 0x0f, 0x05)                                 // syscall
}

// child runs what follows it up to the end of do in a new process.
func (p *initProgram) child(do func()) {
	p.syscall(sysFork)
	p.code = append(p.code, 0x85, 0xc0, 0x0f, 0x85, 0, 0, 0, 0) // test eax, eax; jnz behind
	from := len(p.code)
	do()
	p.syscall(sysExit, num(127))
	binary.LittleEndian.PutUint32(p.code[from-4:], uint32(len(p.code)-from))
}

// reap waits for the child, and stands still when it did not end well.
func (p *initProgram) reap() {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	status := arg{uint64(len(p.data)), true}
	p.data = append(p.data, make([]byte, 8)...)
	p.syscall(sysWait4, num(^uint64(0)), status, num(0), num(0))
	p.load(0, status)
	p.code = append(p.code, 0x83, 0x3f, 0x00, 0x75, 0xfe) // cmp dword [rdi], 0; jne here
}

// The system calls of x86-64.
const (
	sysOpen, sysClose, sysFork, sysExecve, sysExit, sysWait4 = 2, 3, 57, 59, 60, 61
	sysChdir, sysMkdir, sysChroot, sysMount, sysReboot       = 80, 83, 161, 165, 169
	sysFinitModule                                           = 313
)

// elf gives the program as an executable.
func (p *initProgram) elf() []byte {
	const base, headers = 0x400000, 64 + 56
	code, data := bytes.Clone(p.code), bytes.Clone(p.data)
	start := uint64(base + headers + len(code))
	for _, f := range p.fixes {
		place := code
		if f.inData {
			place = data
		}
		binary.LittleEndian.PutUint64(place[f.at:], start+f.data)
	}
	size := uint64(headers + len(code) + len(data))
	b := []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), uint64(base + headers), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(7), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000),
	} {
		b, _ = binary.Append(b, binary.LittleEndian, v) // numbers always encode
	}
	return append(append(b, code...), data...)
}

// rawInit loads the modules, puts the system disk over the root disk, runs
// /bin/true in that, and reboots.
func rawInit(modules []string) []byte {
	p := &initProgram{}
	mount := func(source, target, fstype string, flags uint64, options string) {
		p.syscall(sysMkdir, p.text(target), num(0o755))
		p.syscall(sysMount, p.text(source), p.text(target), p.text(fstype), num(flags), p.text(options))
	}
	for _, m := range modules {
		p.syscall(sysOpen, p.text(m), num(0), num(0))
		p.syscallResult(sysFinitModule, p.text(""), num(0))
	}
	const readOnly = 1
	mount("devtmpfs", "/dev", "devtmpfs", 0, "")
	mount("/dev/vda", "/lower", "ext4", readOnly, "")
	mount("/dev/vdb", "/system", "ext4", 0, "")
	p.syscall(sysMkdir, p.text("/system/upper"), num(0o755))
	p.syscall(sysMkdir, p.text("/system/work"), num(0o755))
	mount("overlay", "/merged", "overlay", 0, "lowerdir=/lower,upperdir=/system/upper,workdir=/system/work")
	p.syscall(sysChroot, p.text("/merged"))
	p.syscall(sysChdir, p.text("/"))
	p.child(func() {
		p.syscall(sysExecve, p.text("/bin/true"), p.words("/bin/true"), p.words())
	})
	p.reap()
	p.syscall(sysReboot, num(0xfee1dead), num(672274793), num(0x01234567), num(0))
	p.code = append(p.code, 0xeb, 0xfe) // jmp here
	return p.elf()
}

package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const testVersion = "6.1.0-56-cloud-amd64 (builder@example) #1 SMP Debian 6.1.192-2 (2026-11-16)"

// fakeVMLinux is an ELF header for x86-64 with some MB that compress a little.
func fakeVMLinux(size int) []byte {
	block := make([]byte, 1<<15)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		if i%3 > 0 {
			block[i] = byte(r.IntN(8))
		}
	}
	b := bytes.Repeat(block, size/len(block)+1)[:size]
	copy(b, elfHead(len(b), true))
	return b
}

// elfHead is the beginning of a vmlinux of that size: one segment with all of it,
// and the note by which QEMU starts it.
func elfHead(size int, pvh bool) []byte {
	const note = elfHeader + 2*elfSegment
	le := binary.LittleEndian
	b := make([]byte, note, note+20)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], elfHeader) // the program headers
	le.PutUint16(b[52:], elfHeader)
	le.PutUint16(b[54:], elfSegment)
	le.PutUint16(b[56:], 2)
	le.PutUint32(b[elfHeader:], uint32(elf.PT_LOAD))
	le.PutUint64(b[elfHeader+32:], uint64(size))
	le.PutUint32(b[elfHeader+elfSegment:], uint32(elf.PT_NOTE))
	le.PutUint64(b[elfHeader+elfSegment+8:], note)
	le.PutUint64(b[elfHeader+elfSegment+32:], 20)
	typ := uint32(xenEntry)
	if !pvh {
		typ = 1
	}
	for _, v := range []uint32{4, 4, typ} {
		b = le.AppendUint32(b, v)
	}
	return le.AppendUint32(append(b, "Xen\x00"...), 0x1000000)
}

// bzImage wraps a payload as the kernel's build does.
func bzImage(payload []byte) []byte {
	const sects, gap = 7, 300
	b := make([]byte, (sects+1)*512+gap)
	b[offSetupSects] = sects
	le := binary.LittleEndian
	le.PutUint16(b[offBootFlag:], 0xaa55)
	copy(b[offHeaderMagic:], "HdrS")
	le.PutUint16(b[offVersion:], 0x20f)
	le.PutUint16(b[offKernelVersion:], 0x400)
	copy(b[0x600:], testVersion+"\x00")
	le.PutUint32(b[offPayload:], gap)
	le.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	return append(append(b, payload...), "what follows the payload"...)
}

func withSize(b []byte, n int) []byte { return binary.LittleEndian.AppendUint32(b, uint32(n)) }

func lz4Legacy(t testing.TB, b []byte) []byte {
	out := []byte{0x02, 0x21, 0x4c, 0x18}
	var c lz4.Compressor
	for len(b) > 0 {
		n := min(len(b), lz4Block)
		block := make([]byte, lz4.CompressBlockBound(n))
		m, err := c.CompressBlock(b[:n], block)
		if err != nil || m == 0 {
			t.Fatalf("cannot compress: %d, %v", m, err)
		}
		out = withSize(out, m)
		out = append(out, block[:m]...)
		b = b[n:]
	}
	return out
}

func payloads(t testing.TB, plain []byte) map[string][]byte {
	p := map[string][]byte{"lz4": withSize(lz4Legacy(t, plain), len(plain)), "none": plain}
	var gz bytes.Buffer
	g := gzip.NewWriter(&gz)
	if _, err := g.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	p["gzip"] = gz.Bytes()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	p["zstd"] = withSize(z.EncodeAll(plain, nil), len(plain))
	for name, args := range map[string][]string{"xz": {"--check=crc32"}, "xz with a filter": {"--check=crc32", "--x86", "--lzma2=dict=32MiB"}} {
		cmd := exec.Command("xz", append(args, "-c")...)
		cmd.Stdin = bytes.NewReader(plain)
		if out, err := cmd.Output(); err == nil {
			p[name] = withSize(out, len(plain))
		} else {
			t.Logf("no xz here: %v", err)
		}
	}
	return p
}

func TestExtractVMLinux(t *testing.T) {
	t.Parallel()
	plain := fakeVMLinux(lz4Block + 12345)
	for name, payload := range payloads(t, plain) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			version, err := ExtractVMLinux(bytes.NewReader(bzImage(payload)), &out)
			if err != nil {
				t.Fatal(err)
			}
			if version != testVersion || firstWord(version) != "6.1.0-56-cloud-amd64" {
				t.Errorf("version %q", version)
			}
			if !bytes.Equal(out.Bytes(), plain) {
				t.Errorf("%d bytes, want %d", out.Len(), len(plain))
			}
		})
	}
}

func TestExtractVMLinuxRefuses(t *testing.T) {
	t.Parallel()
	plain := fakeVMLinux(1 << 16)
	payload := withSize(lz4Legacy(t, plain), len(plain))
	good := bzImage(payload)
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	arm := bytes.Clone(plain)
	arm[18] = 183
	cases := map[string]struct {
		image []byte
		says  string
	}{
		"empty":            {nil, "not a bzImage"},
		"no header":        {make([]byte, 8192), "not a bzImage"},
		"an ELF file":      {plain, "not a bzImage"},
		"old protocol":     {change(func(b []byte) { binary.LittleEndian.PutUint16(b[offVersion:], 0x207) }), "too old"},
		"no version":       {change(func(b []byte) { binary.LittleEndian.PutUint16(b[offKernelVersion:], 0) }), "no version"},
		"version climbs":   {change(func(b []byte) { copy(b[0x600:], "../../etc/x \x00") }), "no version"},
		"payload far away": {change(func(b []byte) { binary.LittleEndian.PutUint32(b[offPayload:], 0x7fffffff) }), "ends before"},
		"no payload":       {change(func(b []byte) { binary.LittleEndian.PutUint32(b[offPayloadLength:], 0) }), "header is wrong"},
		"cut":              {good[:len(good)-3000], "EOF"},
		"unknown method":   {bzImage([]byte("BZh91AY&SY, and more of it")), "unknown way"},
		"lz4, huge block":  {bzImage(withSize([]byte{2, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3, 4, 5, 6}, 1)), "block of"},
		"not an ELF":       {bzImage(withSize(lz4Legacy(t, bytes.Repeat([]byte("text "), 1000)), 5000)), "no ELF file"},
		"not x86":          {bzImage(withSize(lz4Legacy(t, arm), len(arm))), "ELF machine 183"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ExtractVMLinux(bytes.NewReader(c.image), io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

// TestExtractVMLinuxBomb: what unpacks to more than a kernel ever has is cut off.
func TestExtractVMLinuxBomb(t *testing.T) {
	t.Parallel()
	c := &elfChecker{w: io.Discard, left: 100}
	if _, err := c.Write(make([]byte, 101)); err == nil {
		t.Error("101 bytes of 100 were taken")
	}
	var small bytes.Buffer
	z, err := zstd.NewWriter(&small)
	if err != nil {
		t.Fatal(err)
	}
	chunk := fakeVMLinux(1 << 20)
	for range maxVMLinux>>20 + 1 {
		if _, err := z.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ExtractVMLinux(bytes.NewReader(bzImage(withSize(small.Bytes(), 1))), io.Discard); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a bomb of %d bytes: %v", small.Len(), err)
	}
}

func FuzzExtractVMLinux(f *testing.F) {
	for _, p := range payloads(f, fakeVMLinux(4096)) {
		f.Add(bzImage(p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		version, err := ExtractVMLinux(bytes.NewReader(b), io.Discard)
		if err == nil && (firstWord(version) == "" || strings.ContainsAny(firstWord(version), "/ \x00")) {
			t.Errorf("version %q", version)
		}
	})
}

package kernel

import (
	"archive/tar"
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
)

// fakeModule is an ELF file with the section that tells who the module is.
func fakeModule(info string) []byte {
	names := "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	data := uint64(64)
	strs := data + uint64(len(info))
	sections := strs + uint64(len(names))
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: 62, Version: 1, Shoff: sections, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	must2(binary.Write(&b, binary.LittleEndian, h))
	b.WriteString(info)
	b.WriteString(names)
	for _, s := range []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: data, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: strs, Size: uint64(len(names))},
	} {
		must2(binary.Write(&b, binary.LittleEndian, s))
	}
	return b.Bytes()
}

// must2 is for what cannot fail: writing to memory.
func must2(err error) {
	if err != nil {
		panic(err)
	}
}

func info(name, depends string, aliases ...string) string {
	s := "license=GPL\x00depends=" + depends + "\x00name=" + name + "\x00"
	for _, a := range aliases {
		s += "alias=" + a + "\x00"
	}
	return s
}

type member struct {
	name string
	data []byte
	typ  byte
}

// bootable is the configuration of a kernel with all that is no module.
const bootable = `CONFIG_BLK_DEV_INITRD=y
CONFIG_DEVTMPFS=y
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_TMPFS=y
CONFIG_UNIX=y
CONFIG_INET=y
CONFIG_BINFMT_ELF=y
CONFIG_ACPI=y
CONFIG_PVH=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_UNIX98_PTYS=y
`

// kernelTree is a small kernel package: modules in several compressions.
func kernelTree(t testing.TB) []member {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	gz := func(b []byte) []byte {
		var out bytes.Buffer
		g := gzip.NewWriter(&out)
		if _, err := g.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	plain := fakeVMLinux(1 << 16)
	const m = "./usr/lib/modules/6.1.0-56-cloud-amd64/"
	return []member{
		{"./", nil, tar.TypeDir},
		{"./boot/config-6.1.0-56-cloud-amd64", []byte(bootable), tar.TypeReg},
		{"./boot/vmlinuz-6.1.0-56-cloud-amd64", bzImage(withSize(lz4Legacy(t, plain), len(plain))), tar.TypeReg},
		{m, nil, tar.TypeDir},
		{m + "modules.builtin", []byte("kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio_mmio.ko\n"), tar.TypeReg},
		{m + "modules.builtin.modinfo", []byte("ext4.alias=fs-ext4\x00ext4.license=GPL\x00"), tar.TypeReg},
		{m + "modules.order", []byte("x\n"), tar.TypeReg},
		{m + "kernel/virtio.ko", fakeModule(info("virtio", "")), tar.TypeReg},
		{m + "kernel/virtio_ring.ko.zst", z.EncodeAll(fakeModule(info("virtio_ring", "")), nil), tar.TypeReg},
		{m + "kernel/virtio_blk.ko.gz", gz(fakeModule(info("virtio_blk", "virtio_ring,virtio", "virtio:d00000002v*"))), tar.TypeReg},
		{m + "kernel/virtio_console.ko", fakeModule(info("virtio_console", "virtio,virtio-ring")), tar.TypeReg},
		{m + "kernel/overlay.ko", fakeModule(info("overlay", "", "fs-overlay")), tar.TypeReg},
		{m + "kernel/net-failover.ko", fakeModule(info("net_failover", "failover")), tar.TypeReg},
		{m + "kernel/failover.ko", fakeModule(info("failover", "")), tar.TypeReg},
		{m + "kernel/virtio_net.ko", fakeModule(info("virtio_net", "net_failover,virtio,virtio_ring")), tar.TypeReg},
		{m + "kernel/unused.ko", fakeModule(info("unused", "nowhere", "char-major-10-200", "devname:net/tun")), tar.TypeReg},
	}
}

// hasList says whether one of the lists in boot.cpio is that one.
func hasList(boot []byte, modules []string) bool {
	text := "\x00" + strings.Join(modules, ".ko\n") + ".ko\n"
	for {
		_, rest, found := bytes.Cut(boot, []byte(text))
		if !found {
			return false
		}
		if rest[0] == 0 || bytes.HasPrefix(rest, []byte("070701")) { // the end of the member
			return true
		}
		boot = rest
	}
}

// Each transport's driver is on a list of its own, and a kernel without the
// driver of one is for those VMMs that have the other.
func TestTransports(t *testing.T) {
	t.Parallel()
	const mods = "usr/lib/modules/6.1.0-56-cloud-amd64/kernel/"
	whole := append(kernelTree(t),
		member{mods + "vsock.ko", fakeModule(info("vsock", "")), tar.TypeReg},
		member{mods + "vmw_vsock_virtio_transport_common.ko", fakeModule(info("vmw_vsock_virtio_transport_common", "vsock")), tar.TypeReg},
		member{mods + "vmw_vsock_virtio_transport.ko", fakeModule(info("vmw_vsock_virtio_transport", "vmw_vsock_virtio_transport_common,virtio_ring,virtio,vsock")), tar.TypeReg},
		member{mods + "virtio_balloon.ko", fakeModule(info("virtio_balloon", "virtio,virtio_ring")), tar.TypeReg},
	)
	lists := map[string][]string{
		"serial": {"virtio_console"},
		"vsock":  {"vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"},
		"later":  {"virtio_balloon"},
	}
	for without, want := range map[string][]string{
		"nothing":                    {"serial", "vsock", "later"},
		"virtio_console":             {"vsock", "later"},
		"vmw_vsock_virtio_transport": {"serial", "later"},
		"virtio_balloon":             {"serial", "vsock"},
	} {
		tree := slices.DeleteFunc(slices.Clone(whole), func(m member) bool { return strings.HasSuffix(m.name, "/"+without+".ko") })
		dir := layout.KernelDir{Dir: t.TempDir()}
		m, err := Unpack(t.Context(), bytes.NewReader(archive(t, tree)), dir)
		if err != nil {
			t.Errorf("without %s: %v", without, err)
			continue
		}
		boot, err := os.ReadFile(dir.BootModules())
		if err != nil {
			t.Fatal(err)
		}
		for name, list := range lists {
			if hasList(boot, list) != slices.Contains(want, name) {
				t.Errorf("without %s: list %s", without, name)
			}
		}
		for _, transport := range []guestapi.Transport{guestapi.TransportSerial, guestapi.TransportVsock} {
			if m.Carries(transport) != slices.Contains(want, string(transport)) {
				t.Errorf("without %s: transport %s", without, transport)
			}
		}
	}
	if old := (Manifest{}); !old.Carries(guestapi.TransportSerial) || old.Carries(guestapi.TransportVsock) {
		t.Error("a manifest from before there were several transports")
	}
}

func archive(t testing.TB, members []member) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, m := range members {
		if err := tw.WriteHeader(&tar.Header{Typeflag: m.typ, Name: m.name, Size: int64(len(m.data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	dir := layout.KernelDir{Dir: t.TempDir()}
	m, err := Unpack(t.Context(), bytes.NewReader(archive(t, kernelTree(t))), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"virtio_ring", "virtio", "virtio_blk", "overlay", "failover", "net_failover", "virtio_net", "virtio_console"}
	if d := cmp.Diff(want, m.BootModules); d != "" {
		t.Error(d)
	}
	if m.Release != "6.1.0-56-cloud-amd64" || m.Modules != 9 || !strings.HasPrefix(m.Digest, "sha256:") {
		t.Errorf("%+v", m)
	}
	boot, err := os.ReadFile(dir.BootModules())
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]string{want[:len(want)-1], want[len(want)-1:]} {
		if !hasList(boot, list) {
			t.Errorf("boot.cpio lacks the list %v", list)
		}
	}
	if n := bytes.Count(boot, []byte("\x7fELF")); n != len(want) {
		t.Errorf("boot.cpio has %d uncompressed modules, want %d", n, len(want))
	}
	if _, err := exec.LookPath("debugfs"); err != nil {
		t.Skip("no debugfs")
	}
	cat := func(name string) string {
		out, err := exec.CommandContext(t.Context(), "debugfs", "-R", "cat /6.1.0-56-cloud-amd64/"+name, dir.Modules()).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	dep := cat("modules.dep")
	for _, line := range []string{
		"kernel/virtio_net.ko: kernel/virtio_ring.ko.zst kernel/virtio.ko kernel/net-failover.ko kernel/failover.ko\n",
		"kernel/virtio.ko:\n", "kernel/unused.ko:\n",
	} {
		if !strings.Contains(dep, line) {
			t.Errorf("modules.dep lacks %q:\n%s", line, dep)
		}
	}
	if a := cat("modules.alias"); !strings.Contains(a, "alias fs-overlay overlay\n") {
		t.Errorf("modules.alias: %s", a)
	}
	if a := cat("modules.devname"); !strings.Contains(a, "unused net/tun c10:200\n") {
		t.Errorf("modules.devname: %s", a)
	}
	g, paths, err := parseDep(strings.NewReader(dep))
	if err != nil || len(g) != 9 || paths["net_failover"] != "kernel/net-failover.ko" {
		t.Errorf("what we wrote, read again: %v %v", len(g), err)
	}
	left, _ := os.ReadDir(dir.Dir)
	if len(left) != 3 {
		t.Errorf("files: %v", left)
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	without := func(name string) []member {
		return slices.DeleteFunc(kernelTree(t), func(m member) bool { return strings.Contains(m.name, name) })
	}
	with := func(m ...member) []member { return append(kernelTree(t), m...) }
	const mods = "lib/modules/6.1.0-56-cloud-amd64/"
	cases := map[string]struct {
		members []member
		kind    api.Kind
		says    string
	}{
		"no kernel":         {without("vmlinuz"), api.KindInvalid, "no boot/vmlinuz"},
		"no modules":        {without(".ko"), api.KindUnsupported, "virtio_blk (CONFIG_VIRTIO_BLK) for the disks"},
		"not for QEMU":      {without("virtio_console"), api.KindUnsupported, "virtio_console (CONFIG_VIRTIO_CONSOLE) for the guest link"},
		"a driver missing":  {without("virtio_blk"), api.KindUnsupported, "virtio_blk"},
		"a need missing":    {without("/failover.ko"), api.KindUnsupported, "failover"},
		"two kernels":       {with(kernelTree(t)[2]), api.KindInvalid, "more than one kernel"},
		"modules of others": {with(member{"lib/modules/9.9/kernel/x.ko", fakeModule(""), tar.TypeReg}), "", "two kernels"},
		"a climbing path":   {with(member{"lib/modules/../../../etc/passwd", nil, tar.TypeReg}), "", "leaves the archive"},
		"a device":          {with(member{mods + "x", nil, tar.TypeChar}), "", "neither a file"},
		"no module":         {with(member{mods + "x.ko", []byte("text"), tar.TypeReg}), "", "not an ELF file that can be read"},
		"bad compression":   {with(member{mods + "x.ko.xz", []byte("text"), tar.TypeReg}), "", "x.ko.xz"},
		"no modinfo":        {with(member{mods + "x.ko", fakeVMLinux(64), tar.TypeReg}), "", "x.ko"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Unpack(t.Context(), bytes.NewReader(archive(t, c.members)), layout.KernelDir{Dir: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), c.says) || (c.kind != "" && api.KindOf(err) != c.kind) {
				t.Errorf("got %v (%s), want %q", err, api.KindOf(err), c.says)
			}
		})
	}
}

// The names of sections are read before anything else of a module is known.
func TestModulesThatWouldFillMemory(t *testing.T) {
	t.Parallel()
	if _, err := readModinfo(fakeModule(info("good", ""))); err != nil {
		t.Fatal(err)
	}
	names := "\x00.modinfo\x00.shstrtab\x00"
	for what, c := range map[string]struct {
		flags elf.SectionFlag
		data  []byte
	}{
		"a bomb": {elf.SHF_COMPRESSED, func() []byte {
			var b bytes.Buffer
			must2(binary.Write(&b, binary.LittleEndian, elf.Chdr64{Type: uint32(elf.COMPRESS_ZLIB), Size: uint64(len(names)) + 1<<20}))
			z := zlib.NewWriter(&b)
			_, err := io.WriteString(z, names+strings.Repeat("\x00", 1<<20))
			must2(errors.Join(err, z.Close()))
			return b.Bytes()
		}()},
		"long names": {0, []byte(names + strings.Repeat("n", maxSectionNames/3))},
	} {
		b := fakeModule(info("bad", ""))
		last := b[len(b)-elfSection:]
		binary.LittleEndian.PutUint64(last[8:], uint64(c.flags))
		binary.LittleEndian.PutUint64(last[24:], uint64(len(b)))
		binary.LittleEndian.PutUint64(last[32:], uint64(len(c.data)))
		if _, err := readModinfo(append(b, c.data...)); err == nil || !strings.Contains(err.Error(), "names of its 3 sections are too long") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestClosure(t *testing.T) {
	t.Parallel()
	g := graph{"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": nil, "x": {"y"}, "y": {"x"}, "z": {"gone", "d"}}
	builtin := map[string]bool{"in": true}
	for _, c := range []struct {
		wanted  []string
		want    []string
		missing string
	}{
		{[]string{"a"}, []string{"d", "b", "c", "a"}, ""},
		{[]string{"d", "a", "a"}, []string{"d", "b", "c", "a"}, ""},
		{[]string{"x"}, []string{"y", "x"}, ""},
		{[]string{"in", "d"}, []string{"d"}, ""},
		{[]string{"z", "away"}, nil, "away, gone"},
		{nil, nil, ""},
	} {
		got, err := g.closure(c.wanted, builtin)
		if (c.missing == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.missing)) {
			t.Errorf("%v: %v", c.wanted, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%v: %s", c.wanted, d)
		}
	}
}

// lookup reads an index as modprobe does, for exact keys.
func lookup(b []byte, key string) []string {
	if binary.BigEndian.Uint32(b) != trieMagic || binary.BigEndian.Uint32(b[4:]) != trieVersion {
		return nil
	}
	at := binary.BigEndian.Uint32(b[8:])
	for {
		p := b[at&0x0fffffff:]
		if at&triePrefix != 0 {
			i := bytes.IndexByte(p, 0)
			rest, ok := strings.CutPrefix(key, string(p[:i]))
			if !ok {
				return nil
			}
			key, p = rest, p[i+1:]
		}
		var next uint32
		if at&trieChilds != 0 {
			first, last := p[0], p[1]
			n := int(last-first) + 1
			if key != "" && key[0] >= first && key[0] <= last {
				next = binary.BigEndian.Uint32(p[2+4*int(key[0]-first):])
			}
			p = p[2+4*n:]
		}
		if key == "" {
			if at&trieValues == 0 {
				return nil
			}
			var values []string
			n := binary.BigEndian.Uint32(p)
			p = p[4:]
			for range n {
				i := bytes.IndexByte(p[4:], 0)
				values = append(values, string(p[4:4+i]))
				p = p[4+i+1:]
			}
			return values
		}
		if next == 0 {
			return nil
		}
		at, key = next, key[1:]
	}
}

func TestTrie(t *testing.T) {
	t.Parallel()
	want := map[string][]string{}
	var x trie
	for i, key := range []string{"virtio", "virtio_net", "virtio_blk", "v", "ext4", "virtio", "virtuous", "", "ext"} {
		value := strings.Repeat("x", i+1)
		x.insert(key, value, i)
		want[key] = append(want[key], value)
	}
	x.insert("ünicode", "left out", 0)
	b := x.bytes()
	for key, values := range want {
		if d := cmp.Diff(values, lookup(b, key)); d != "" {
			t.Errorf("%q: %s", key, d)
		}
	}
	for _, key := range []string{"vir", "virtio_", "ext44", "z", "ünicode"} {
		if got := lookup(b, key); got != nil {
			t.Errorf("%q: %v", key, got)
		}
	}
	var none trie
	if got := lookup(none.bytes(), "x"); got != nil {
		t.Error(got)
	}
}

func FuzzTrie(f *testing.F) {
	f.Add("virtio\nvirtio_net\nvirt\n")
	f.Fuzz(func(t *testing.T, text string) {
		var x trie
		want := map[string][]string{}
		for key := range strings.SplitSeq(text, "\n") {
			x.insert(key, "v"+key, 0)
			if !strings.ContainsFunc(key, func(r rune) bool { return r == 0 || r >= 128 }) {
				want[key] = append(want[key], "v"+key)
			}
		}
		b := x.bytes()
		for key := range maps.Keys(want) {
			if d := cmp.Diff(want[key], lookup(b, key)); d != "" {
				t.Errorf("%q: %s", key, d)
			}
		}
	})
}

func FuzzModulesDep(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko:\n", "kernel/c.ko\n")
	f.Fuzz(func(t *testing.T, dep, builtin string) {
		g, _, err := parseDep(strings.NewReader(dep))
		if err != nil {
			return
		}
		in, err := parseBuiltin(strings.NewReader(builtin))
		if err != nil {
			return
		}
		order, err := g.closure(slices.Collect(maps.Keys(g)), in)
		if err == nil && len(order) != len(g) {
			t.Errorf("%d of %d modules", len(order), len(g))
		}
	})
}

func FuzzModinfo(f *testing.F) {
	f.Add(fakeModule(info("x", "a,b", "fs-x")))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = readModinfo(b) })
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, kernelTree(f)[3:10]))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		tw := tar.NewWriter(io.Discard)
		spool, err := newSpool(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = spool.Close() }()
		u := unpacker{dir: layout.KernelDir{Dir: "/nonexistent"}, source: map[string]string{}, modules: moduleSet{spool: spool}}
		_ = u.read(tar.NewReader(bytes.NewReader(b)), tw)
		u.transports = []guestapi.Transport{guestapi.TransportSerial, guestapi.TransportVsock}
		_, _ = u.plan()
		_ = u.modules.writeIndexes(t.Context(), tar.NewWriter(io.Discard))
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"manifest_version":1,"release":"6.1","digest":"sha256:00","size_bytes":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err == nil && (m.Release == "" || strings.Contains(m.Release, "/") || m.Source == nil) {
			t.Errorf("%+v", m)
		}
	})
}

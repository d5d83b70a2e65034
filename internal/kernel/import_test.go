package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
)

const release = "6.1.0-56-cloud-amd64"

// arMember is one member of an ar archive.
func arMember(name string, data []byte) []byte {
	b := fmt.Appendf(nil, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data))
	b = append(b, data...)
	if len(data)%2 == 1 {
		b = append(b, '\n')
	}
	return b
}

// debOf is a Debian package of the members; suffix says how it is compressed.
func debOf(t testing.TB, control, suffix string, members []member) []byte {
	t.Helper()
	pack := func(b []byte) []byte { return packed(t, suffix, b) }
	b := []byte(arMagic)
	b = append(b, arMember("debian-binary", []byte("2.0\n"))...)
	b = append(b, arMember("control.tar"+suffix, pack(archive(t, []member{{"./", nil, tar.TypeDir}, {"./control", []byte(control), tar.TypeReg}})))...)
	return append(b, arMember("data.tar"+suffix, pack(archive(t, members)))...)
}

func packed(t testing.TB, suffix string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch suffix {
	case "":
		return b
	case ".gz":
		z := gzip.NewWriter(&out)
		must2(func() error { _, err := z.Write(b); return err }())
		must2(z.Close())
	case ".zst":
		z, err := zstd.NewWriter(&out)
		must2(err)
		must2(func() error { _, err := z.Write(b); return err }())
		must2(z.Close())
	case ".xz":
		cmd := exec.Command("xz", "-c", "-1")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(b), &out
		if err := cmd.Run(); err != nil {
			t.Skipf("no xz here: %v", err)
		}
	}
	return out.Bytes()
}

const control = "Package: linux-image-6.1.0-56-cloud-amd64\nVersion: 6.1.192-2\nArchitecture: amd64\nInstalled-Size: 300\nDescription: Linux\n for clouds\n"

func put(t testing.TB, path string, b []byte) string {
	t.Helper()
	must2(os.MkdirAll(filepath.Dir(path), 0o755))
	must2(os.WriteFile(path, b, 0o644))
	return path
}

// folderOf lays the members out below dir.
func folderOf(t testing.TB, dir string, members []member) string {
	t.Helper()
	for _, m := range members {
		switch p := filepath.Join(dir, m.name); m.typ {
		case tar.TypeDir:
			must2(os.MkdirAll(p, 0o755))
		case tar.TypeReg:
			put(t, p, m.data)
		}
	}
	return dir
}

// importOf imports into a new folder.
func importOf(t *testing.T, opt ImportOptions) (Manifest, layout.KernelDir, error) {
	t.Helper()
	dir := layout.KernelDir{Dir: t.TempDir()}
	m, err := Import(t.Context(), dir, opt)
	if err == nil {
		got, rerr := ReadManifest(dir)
		if d := cmp.Diff(m, got); rerr != nil || d != "" {
			t.Errorf("the manifest on the disk: %v %s", rerr, d)
		}
	}
	return m, dir, err
}

var bootOrder = []string{"virtio_ring", "virtio", "virtio_blk", "overlay", "failover", "net_failover", "virtio_net", "virtio_console"}

func TestImportKernelPackage(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		t.Run("data.tar"+suffix, func(t *testing.T) {
			t.Parallel()
			path := put(t, filepath.Join(t.TempDir(), "linux.deb"), debOf(t, control, suffix, kernelTree(t)))
			var stages []string
			m, dir, err := importOf(t, ImportOptions{Path: path, Report: func(p debian.Progress) {
				if !slices.Contains(stages, p.Stage) {
					stages = append(stages, p.Stage)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if m.Release != release || m.Modules != 9 || m.Source["package_version"] != "6.1.192-2" || m.Source["kind"] != "deb" ||
				m.Source["path"] != path || !strings.HasPrefix(m.Source["digest"], "sha256:") {
				t.Errorf("%+v", m)
			}
			if d := cmp.Diff(bootOrder, m.BootModules); d != "" {
				t.Error(d)
			}
			if want := []string{"only QEMU can start it: it lacks vmw_vsock_virtio_transport (CONFIG_VIRTIO_VSOCKETS) for the guest link under Firecracker"}; cmp.Diff(want, m.Warnings) != "" {
				t.Error(cmp.Diff(want, m.Warnings))
			}
			if size, err := sizeOf(dir); err != nil || size != m.SizeBytes {
				t.Errorf("%d bytes, the manifest says %d, %v", size, m.SizeBytes, err)
			}
			if d := cmp.Diff([]string{"unpacking linux.deb"}, stages); d != "" {
				t.Error(d)
			}
		})
	}
}

// The same kernel from a package, from folders of several shapes, and from a file
// with its modules beside it has the same content.
func TestImportKernelFolders(t *testing.T) {
	t.Parallel()
	tree := kernelTree(t)
	moved := func(f func(name string) string) []member {
		var out []member
		for _, m := range tree {
			m.name = f(strings.TrimPrefix(m.name, "./"))
			out = append(out, m)
		}
		return out
	}
	_, err := exec.LookPath("true")
	must2(err)
	want, _, err := importOf(t, ImportOptions{Path: put(t, filepath.Join(t.TempDir(), "linux.deb"), debOf(t, control, "", tree))})
	if err != nil {
		t.Fatal(err)
	}
	noUsr := func(n string) string { return strings.TrimPrefix(n, "usr/") }
	for name, c := range map[string]struct {
		members []member
		path    string
		modules string
	}{
		"an unpacked package":   {tree, "", ""},
		"boot and lib/modules":  {moved(noUsr), "", ""},
		"kernel in the top":     {moved(func(n string) string { return noUsr(strings.TrimPrefix(n, "boot/")) }), "", ""},
		"kernel by the modules": {moved(func(n string) string { return noUsr(strings.Replace(n, "boot/", "lib/modules/"+release+"/", 1)) }), "lib/modules/" + release, ""},
		"a build's folder": {moved(func(n string) string {
			n = strings.Replace(noUsr(n), "boot/vmlinuz-"+release, "arch/x86/boot/bzImage", 1)
			return strings.Replace(n, "boot/config-"+release, ".config", 1)
		}), "", ""},
		"a bzImage, its modules":    {moved(noUsr), "boot/vmlinuz-" + release, "lib/modules/" + release},
		"a bzImage, all modules":    {moved(noUsr), "boot/vmlinuz-" + release, "lib/modules"},
		"a bzImage, modules' root":  {moved(noUsr), "boot/vmlinuz-" + release, "."},
		"a bzImage, usr's own root": {moved(func(n string) string { return n }), "boot/vmlinuz-" + release, "."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folderOf(t, t.TempDir(), c.members)
			opt := ImportOptions{Path: filepath.Join(dir, c.path)}
			if c.modules != "" {
				opt.Modules = filepath.Join(dir, c.modules)
			}
			// What is the user's machine's is no part of the kernel.
			must2(os.Symlink("/usr/src/linux", filepath.Join(dir, findModules(t, dir), "build")))
			m, _, err := importOf(t, opt)
			if err != nil {
				t.Fatal(err)
			}
			if m.Content != want.Content || m.Digest != want.Digest || m.Modules != want.Modules || cmp.Diff(m.BootModules, want.BootModules) != "" {
				t.Errorf("%+v", m)
			}
		})
	}
}

func findModules(t *testing.T, dir string) string {
	t.Helper()
	for _, p := range []string{"lib/modules/", "usr/lib/modules/"} {
		if _, err := os.Stat(filepath.Join(dir, p+release)); err == nil {
			return p + release
		}
	}
	t.Fatal("no modules")
	return ""
}

// vmlinux is an uncompressed kernel with these texts in it, and what debuggers
// want behind it.
func vmlinux(pvh bool, texts ...string) []byte {
	body := strings.Join(texts, "\x00") + "\x00"
	size := len(elfHead(0, pvh)) + len(body)
	return append(append(elfHead(size, pvh), body...), bytes.Repeat([]byte("DWARF"), 1000)...)
}

const banner = "Linux version 6.9.0-mine (me@here) (gcc 12) #1 SMP"

// builtins are the marks of a kernel that has everything built in.
func builtins() []string {
	out := []string{"Linux version %s", banner}
	for _, n := range needs() {
		out = append(out, strings.TrimSuffix(n.mark, "\x00"))
	}
	return out
}

func without(list []string, word string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == word })
}

func embeddedConfig(t testing.TB, text string) string {
	return configStart + string(packed(t, ".gz", []byte(text))) + "IKCFG_ED"
}

const allBuiltin = bootable + "CONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_NET=y\nCONFIG_EXT4_FS=y\nCONFIG_OVERLAY_FS=y\nCONFIG_VIRTIO_CONSOLE=y\nCONFIG_VIRTIO_VSOCKETS=y\n"

func TestImportVMLinux(t *testing.T) {
	t.Parallel()
	blind := "it carries no configuration, so nothing is known of CONFIG_PROC_FS, CONFIG_SYSFS, CONFIG_TMPFS, CONFIG_UNIX, CONFIG_INET, CONFIG_BINFMT_ELF, CONFIG_UNIX98_PTYS"
	for name, c := range map[string]struct {
		file      []byte
		unchecked bool
		says      string // of the error; empty: none
		warns     []string
	}{
		"everything is seen in the image": {file: vmlinux(true, builtins()...), warns: []string{blind}},
		"it carries its configuration":    {file: vmlinux(true, banner, embeddedConfig(t, allBuiltin))},
		"the configuration says no": {file: vmlinux(true, append(builtins(), embeddedConfig(t, strings.Replace(allBuiltin, "EXT4_FS=y", "EXT4_FS=n", 1)))...),
			says: "it lacks ext4 (CONFIG_EXT4_FS) for the disks' file system"},
		"what looks like a configuration": {file: vmlinux(true, append(builtins(), configStart+"nonsense")...), warns: []string{blind}},
		"not seen": {file: vmlinux(true, without(builtins(), "virtio_blk")...),
			says: "carries no configuration, and in its image there is no trace of virtio_blk (CONFIG_VIRTIO_BLK) for the disks"},
		"not seen, unchecked": {file: vmlinux(true, without(builtins(), "virtio_blk")...), unchecked: true,
			warns: []string{blind, "taken unchecked, though it seems to lack virtio_blk (CONFIG_VIRTIO_BLK) for the disks"}},
		"ACPI not seen": {file: vmlinux(true, without(builtins(), "ACPI: Interpreter enabled")...),
			warns: []string{"there is no trace in it of CONFIG_ACPI for finding devices under QEMU", blind}},
		"no QEMU":    {file: vmlinux(false, builtins()...), warns: []string{"only Firecracker can start it: it lacks CONFIG_PVH for the start under QEMU", blind}},
		"no link":    {file: vmlinux(false, without(builtins(), "vmw_vsock_virtio_transport")...), says: "it lacks CONFIG_PVH for the start under QEMU"},
		"no version": {file: vmlinux(true, without(builtins(), banner)...), says: "names no version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, dir, err := importOf(t, ImportOptions{Path: put(t, filepath.Join(t.TempDir(), "vmlinux"), c.file), Unchecked: c.unchecked})
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) || !slices.Contains([]api.Kind{api.KindUnsupported, api.KindInvalid}, api.KindOf(err)) {
					t.Errorf("got %v (%s)", err, api.KindOf(err))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.warns, m.Warnings); d != "" {
				t.Error(d)
			}
			if m.Release != "6.9.0-mine" || len(m.BootModules) != 0 || m.Modules != 0 {
				t.Errorf("%+v", m)
			}
			if b, err := os.ReadFile(dir.VMLinux()); err != nil || bytes.Contains(b, []byte("DWARF")) || !bytes.Contains(b, []byte(banner)) {
				t.Errorf("vmlinux: %d bytes, %v", len(b), err)
			}
		})
	}
}

func TestImportKernelRefuses(t *testing.T) {
	t.Parallel()
	tree := func(change ...member) []member { return append(kernelTree(t), change...) }
	drop := func(word string) []member {
		return slices.DeleteFunc(kernelTree(t), func(m member) bool { return strings.Contains(m.name, word) })
	}
	good := debOf(t, control, ".zst", kernelTree(t))
	arm := make([]byte, 4096)
	copy(arm, "MZ")
	copy(arm[56:], "ARM\x64")
	const mods = "lib/modules/" + release + "/"
	deb := func(b []byte) func(string) string {
		return func(dir string) string { return put(t, filepath.Join(dir, "x.deb"), b) }
	}
	folder := func(members ...member) func(string) string {
		return func(dir string) string {
			return folderOf(t, filepath.Join(dir, "f"), append(members, member{".", nil, tar.TypeDir}))
		}
	}
	zeros := make([]byte, 64<<20)
	for name, c := range map[string]struct {
		path func(dir string) string
		kind api.Kind
		says string
		hint string
	}{
		"not there":     {func(dir string) string { return filepath.Join(dir, "none") }, api.KindNotFound, "no such file", ""},
		"text":          {deb([]byte("hello")), api.KindInvalid, "neither a Debian package nor a bzImage nor a vmlinux", ""},
		"empty":         {deb(nil), api.KindInvalid, "neither a Debian package", ""},
		"compressed":    {deb([]byte("\x1f\x8b\x08\x00")), api.KindInvalid, "uncompress it first", ""},
		"RPM":           {deb([]byte("\xed\xab\xee\xdb\x03\x00")), api.KindUnsupported, "RPM package", ""},
		"a pipe":        {func(dir string) string { p := filepath.Join(dir, "p"); must2(syscall.Mkfifo(p, 0o600)); return p }, api.KindInvalid, "neither a file nor a folder", ""},
		"arm64 file":    {deb(arm), api.KindUnsupported, "for arm64, guests on this host are x86-64", ""},
		"arm64 package": {deb(debOf(t, strings.Replace(control, "amd64\nI", "arm64\nI", 1), ".gz", tree())), api.KindUnsupported, "for arm64", ""},
		"arm64 inside":  {deb(debOf(t, control, ".gz", append(drop("vmlinuz"), member{"boot/vmlinuz-6.1", arm, tar.TypeReg}))), api.KindUnsupported, "for arm64", ""},
		"an object":     {deb(func() []byte { b := fakeVMLinux(4096); b[16] = 1; return b }()), api.KindInvalid, "object file", ""},

		"ar only":          {deb([]byte(arMagic)), api.KindInvalid, "cut short", ""},
		"cut in control":   {deb(good[:200]), api.KindInvalid, "control.tar.zst", ""},
		"cut in data":      {deb(good[:len(good)-2000]), api.KindInvalid, "", ""},
		"cut in ar header": {deb(good[:100]), api.KindInvalid, "cut short", ""},
		"ar of something":  {deb(append([]byte(arMagic), arMember("x.o/", []byte("x"))...)), api.KindInvalid, "no Debian package", ""},
		"ar, huge member":  {deb(append([]byte(arMagic), "debian-binary   0           0     0     100644  9999999999`\n2.0\n"...)), api.KindInvalid, "missing", ""},
		"ar, bad size":     {deb(append([]byte(arMagic), "debian-binary   0           0     0     100644  -1        `\n2.0\n"...)), api.KindInvalid, "ar header is wrong", ""},
		"format 9":         {deb(append([]byte(arMagic), arMember("debian-binary", []byte("9.0\n"))...)), api.KindUnsupported, "format", ""},
		"many members": {deb(append([]byte(arMagic), append(arMember("debian-binary", []byte("2.0\n")), bytes.Repeat(arMember("_x", nil), 100)...)...)), api.KindInvalid,
			"no data within", ""},
		"data first":      {deb(append([]byte(arMagic), append(arMember("debian-binary", []byte("2.0\n")), arMember("data.tar", nil)...)...)), api.KindInvalid, "before its control", ""},
		"bzip2":           {deb(append([]byte(arMagic), append(arMember("debian-binary", []byte("2.0\n")), arMember("control.tar.bz2", nil)...)...)), api.KindUnsupported, "unknown way", ""},
		"a module's bomb": {deb(debOf(t, control, ".zst", tree(member{"usr/" + mods + "x.ko.gz", packed(t, ".gz", append(zeros, 0)), tar.TypeReg}))), api.KindInvalid, "larger than", ""},
		"no kernel package": {deb(debOf(t, "Package: bash\nVersion: 5\nArchitecture: amd64\n", ".gz", []member{{"bin/bash", []byte("x"), tar.TypeReg}})), api.KindInvalid,
			"the package bash holds no kernel", ""},
		"a package that points": {deb(debOf(t, "Package: linux-image-amd64\nVersion: 6\nArchitecture: amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n", ".gz",
			[]member{{"usr/share/doc/x", []byte("x"), tar.TypeReg}})), api.KindInvalid, "points at linux-image-6.1.0-56-amd64", "apt-get download linux-image-6.1.0-56-amd64"},
		"climbing":        {deb(debOf(t, control, ".gz", tree(member{"../../etc/passwd", []byte("x"), tar.TypeReg}))), api.KindInvalid, "leaves the archive", ""},
		"a kernel link":   {deb(debOf(t, control, ".gz", append(drop("vmlinuz"), member{"boot/vmlinuz-" + release, nil, tar.TypeSymlink}))), api.KindInvalid, "holds no kernel", ""},
		"a module device": {deb(debOf(t, control, ".gz", tree(member{"usr/" + mods + "sda", nil, tar.TypeBlock}))), api.KindInvalid, "neither a file, a folder nor a link", ""},
		"two in one":      {deb(debOf(t, control, ".gz", tree(kernelTree(t)[2]))), api.KindInvalid, "more than one kernel", ""},
		"other's modules": {deb(debOf(t, control, ".gz", append(drop("modules"), member{"lib/modules/6.2.0/kernel/x.ko", fakeModule(info("x", "")), tar.TypeReg}))), api.KindInvalid,
			"its kernel is " + release + ", its modules are for 6.2.0", ""},
		"a module of another": {deb(debOf(t, control, ".gz", append(drop("virtio_blk"), member{"usr/" + mods + "kernel/virtio_blk.ko", fakeModule(info("virtio_blk", "") + "vermagic=6.2.0 SMP\x00"), tar.TypeReg}))),
			api.KindInvalid, "its module virtio_blk is for 6.2.0", ""},
		"a driver missing": {deb(debOf(t, control, ".gz", drop("virtio_net"))), api.KindUnsupported, "virtio_net (CONFIG_VIRTIO_NET) for the network", ""},

		"an empty folder": {folder(), api.KindInvalid, "holds no kernel", ""},
		"modules only":    {folder(drop("vmlinuz")...), api.KindInvalid, "holds no kernel", ""},
		"folder, two":     {folder(tree(member{"boot/vmlinuz-6.9", vmlinux(true, builtins()...), tar.TypeReg})...), api.KindInvalid, "boot/vmlinuz-" + release + ", boot/vmlinuz-6.9", "banger kernel import --help"},
		"folder, others":  {folder(append(drop("modules"), member{"lib/modules/6.2.0/kernel/x.ko", fakeModule(info("x", "")), tar.TypeReg})...), api.KindInvalid, "the modules are for 6.2.0", ""},
		"folder, piped config": {func(dir string) string {
			f := folderOf(t, filepath.Join(dir, "f"), drop("config"))
			must2(syscall.Mkfifo(filepath.Join(f, "boot/config-"+release), 0o600))
			return f
		}, api.KindUnsupported, "no trace of CONFIG_BLK_DEV_INITRD", ""},
		"folder, a pipe": {func(dir string) string {
			f := folderOf(t, filepath.Join(dir, "f"), tree())
			must2(syscall.Mkfifo(filepath.Join(f, "usr", mods, "pipe"), 0o600))
			return f
		}, api.KindInvalid, "neither a file", ""},
		"a bare bzImage": {func(dir string) string { return filepath.Join(folderOf(t, dir, tree()), "boot/vmlinuz-"+release) }, api.KindUnsupported, "lacks virtio_blk", "--modules /lib/modules/" + release + " --name mine"},
		"a link that goes": {func(dir string) string {
			f := filepath.Join(dir, "f")
			must2(os.MkdirAll(f, 0o755))
			must2(os.Symlink(put(t, filepath.Join(dir, "k"), vmlinux(true, builtins()...)), filepath.Join(f, "vmlinuz")))
			return f
		}, api.KindInvalid, "holds no kernel", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := layout.KernelDir{Dir: t.TempDir()}
			_, err := Import(t.Context(), dir, ImportOptions{Path: c.path(t.TempDir()), Name: "mine"})
			e := api.AsError(err)
			if err == nil || api.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) || !strings.Contains(e.Hint, c.hint) ||
				!strings.HasPrefix(err.Error(), "cannot import kernel from /") {
				t.Errorf("got %v (%s), hint %+v", err, api.KindOf(err), e)
			}
			if _, err := os.Stat(dir.Manifest()); err == nil {
				t.Error("there is a manifest")
			}
		})
	}
}

// What a package unpacks to is bounded, however small it is.
func TestImportBoundsThePackage(t *testing.T) {
	t.Parallel()
	l := &limited{r: zeroReader{}, left: 1000}
	n, err := io.Copy(io.Discard, l)
	if api.KindOf(err) != api.KindInvalid || n > 1000 || !strings.Contains(err.Error(), "unpacks to more than 16GiB") {
		t.Errorf("%d bytes, %v", n, err)
	}
	set := moduleSet{}
	for size, says := range map[int64]string{maxModule + 1: "67108865 bytes", maxStored + 1: "268435457 bytes"} {
		h := &tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: size}
		if err := set.add(h, "6.1/x.ko", zeroReader{}, tar.NewWriter(io.Discard)); err == nil || !strings.Contains(err.Error(), says) {
			t.Error(err)
		}
	}
	for _, name := range []string{"modules.dep", "modules.builtin", "modules.builtin.modinfo"} {
		h := &tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: maxList + 1}
		if err := set.add(h, "6.1/"+name, zeroReader{}, tar.NewWriter(io.Discard)); err == nil || !strings.Contains(err.Error(), "8388609 bytes") {
			t.Error(err)
		}
	}
	u := unpacker{source: map[string]string{}}
	if err := u.read(&endless{}, nil); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "more than 100000 members") {
		t.Error(err)
	}
}

// Modules that all need each other cost neither hours nor the memory of the host.
func TestModulesThatNeedTooMany(t *testing.T) {
	t.Parallel()
	const n = 2_500
	set := moduleSet{release: "6.1", byName: map[string]int{}}
	add := func(name string, depends ...string) {
		set.byName[name] = len(set.list)
		set.list = append(set.list, module{path: "kernel/" + name + ".ko", info: modinfo{name: name, depends: depends}})
	}
	for i := range n {
		add(fmt.Sprint("m", i), fmt.Sprint("m", i+1))
	}
	add(fmt.Sprint("m", n))
	add("again", slices.Repeat([]string{"m0"}, n)...)
	for _, name := range []string{"m0", "again"} {
		if _, err := set.graph().closure([]string{name}, nil); err == nil || !strings.Contains(err.Error(), "needs too many") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if order, err := set.graph().closure([]string{fmt.Sprint("m", n-1000)}, nil); err != nil || len(order) != 1001 {
		t.Errorf("%d, %v", len(order), err)
	}
	for i := range set.list {
		set.list[i].path = strings.Repeat("long/", 20) + set.list[i].path
	}
	if err := set.writeIndexes(t.Context(), tar.NewWriter(io.Discard)); api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "more than 67108864 bytes") {
		t.Errorf("got %v", err)
	}
	mine := errors.New("nobody waits")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	if err := set.writeIndexes(ctx, tar.NewWriter(io.Discard)); !errors.Is(err, mine) {
		t.Errorf("cancelled: %v", err)
	}
}

// What looks like a version, again and again, costs no time.
func TestScanIsNotHeldUp(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	b := bytes.Repeat([]byte("Linux version 1"), scanChunk/15)
	for range 100 {
		if v := findVersion(b); v != "" {
			t.Fatal(v)
		}
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("100 chunks took %s", took)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }

// endless is a tree without an end.
type endless struct{ zeroReader }

func (*endless) Next() (*tar.Header, error) {
	return &tar.Header{Name: "x", Typeflag: tar.TypeReg}, nil
}

func TestImportHeedsItsContext(t *testing.T) {
	t.Parallel()
	path := put(t, filepath.Join(t.TempDir(), "linux.deb"), debOf(t, control, "", kernelTree(t)))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := api.Errorf(api.KindCancelled, "enough")
	cancel(why)
	if _, err := Import(ctx, layout.KernelDir{Dir: t.TempDir()}, ImportOptions{Path: path}); err != why {
		t.Error(err)
	}
}

// Unreadable is told as such to whoever is not root.
func TestImportUnreadable(t *testing.T) {
	t.Parallel()
	i := &importer{ctx: t.Context(), opt: ImportOptions{Path: "/x/y.deb"}, u: &unpacker{}}
	err := i.explain(&os.PathError{Op: "open", Path: "/x/y.deb", Err: syscall.EACCES})
	if e := api.AsError(err); e.Kind != api.KindDenied || e.Hint != "ls -ld /x/y.deb" {
		t.Errorf("%+v", e)
	}
	i.need = 3 << 30
	err = i.explain(fmt.Errorf("cannot write file system: %w", syscall.ENOSPC))
	if e := api.AsError(err); e.Kind != api.KindNoSpace || !strings.Contains(e.Message, "needs about 3GiB") {
		t.Errorf("%+v", e)
	}
}

// The modules that ext4 asks for by a soft dependency are loaded before it: of
// two that answer to one name the one that runs on every processor.
func TestBootModulesBySoftDependency(t *testing.T) {
	t.Parallel()
	tree := kernelTree(t)
	for i := range tree {
		if strings.HasSuffix(tree[i].name, "modules.builtin") {
			tree[i].data = []byte("kernel/drivers/virtio/virtio_mmio.ko\n")
		}
	}
	const mods = "usr/lib/modules/" + release + "/kernel/"
	tree = append(tree,
		member{mods + "ext4.ko", fakeModule(info("ext4", "mbcache") + "softdep=pre: crc32c post: unused\x00"), tar.TypeReg},
		member{mods + "mbcache.ko", fakeModule(info("mbcache", "")), tar.TypeReg},
		member{mods + "crc32c-intel.ko", fakeModule(info("crc32c_intel", "", "crc32c")), tar.TypeReg},
		member{mods + "crc32c_generic.ko", fakeModule(info("crc32c_generic", "", "crc32c")), tar.TypeReg},
	)
	m, err := Unpack(t.Context(), bytes.NewReader(archive(t, tree)), layout.KernelDir{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(slices.Insert(slices.Clone(bootOrder), len(bootOrder)-1, "mbcache", "crc32c_generic", "ext4"), m.BootModules); d != "" {
		t.Error(d)
	}
}

func FuzzDeb(f *testing.F) {
	f.Add(debOf(f, control, "", kernelTree(f)[:3]))
	f.Add(debOf(f, control, ".gz", kernelTree(f)[3:6]))
	f.Fuzz(func(t *testing.T, b []byte) {
		begun := time.Now()
		d, err := openDeb(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer d.close()
		_, _ = io.Copy(io.Discard, &limited{r: d.data, left: 16 << 20})
		if name := d.dependsOnKernel(); name != "" && !packageName(name) || d.installedBytes() < 0 {
			t.Errorf("%q, %d bytes", name, d.installedBytes())
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func FuzzKernelFile(f *testing.F) {
	f.Add(vmlinux(true, builtins()...))
	f.Add(bzImage(withSize(lz4Legacy(f, fakeVMLinux(4096)), 4096)))
	f.Add(vmlinux(true, banner, embeddedConfig(f, allBuiltin)))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		must2(os.MkdirAll(path, 0o700))
		defer func() { _ = os.RemoveAll(path) }()
		u := unpacker{dir: layout.KernelDir{Dir: path}, source: map[string]string{}}
		if err := u.kernel("vmlinux", bytes.NewReader(b)); err != nil {
			return
		}
		if firstWord(u.release) != u.release || u.release == "" {
			t.Errorf("release %q", u.release)
		}
		_ = u.check(true)
	})
}

func FuzzKernelConfig(f *testing.F) {
	f.Add(allBuiltin)
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseConfig(strings.NewReader(text)); err == nil && len(c) == 0 {
			t.Error("a configuration of nothing")
		}
		_, _ = parseEmbedded(strings.NewReader(text))
		_ = parseControl(text)
		_ = hasNote([]byte(text), "Xen\x00", xenEntry)
		_ = softNeeds([]string{text})
	})
}

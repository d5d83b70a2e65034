package kernel

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// Bounds of a folder that a kernel is imported from.
const (
	maxFolderFiles = 100_000
	maxReleases    = 64
)

// folder is a tree of the user's that holds a kernel, its modules, or both. What
// is read lies within it: no symbolic link leads out of it.
type folder struct {
	root     *os.Root
	kernels  []kernelFile
	modules  map[string]string // folder by release
	releases []string          // the keys of modules, sorted
}

// kernelFile is one kernel in a folder.
type kernelFile struct {
	path, release string
	kind          fileKind
	info          fs.FileInfo
}

// openFolder looks for what there is in a folder; it reads no modules.
func openFolder(dir string) (*folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{root: root, modules: map[string]string{}}
	if err := f.look(); err != nil {
		_ = root.Close()
		return nil, err
	}
	return f, nil
}

func (f *folder) look() error {
	// What make modules_install and packages make, the folder above the releases,
	// and one release's own.
	for _, above := range []string{"lib/modules", "usr/lib/modules", "."} {
		for _, d := range f.list(above) {
			if dir := path.Join(above, d.Name()); f.isModules(dir) && f.modules[d.Name()] == "" && firstWord(d.Name()) != "" {
				f.modules[d.Name()] = dir
				f.releases = append(f.releases, d.Name())
			}
		}
	}
	if release := path.Base(f.root.Name()); f.isModules(".") && firstWord(release) != "" {
		f.modules[release] = "."
		f.releases = append(f.releases, release)
	}
	slices.Sort(f.releases)
	if len(f.releases) > maxReleases {
		return api.Errorf(api.KindInvalid, "it holds modules of %d kernels", len(f.releases))
	}
	places := []string{".", "boot", "arch/x86/boot"}
	for _, r := range f.releases {
		places = append(places, f.modules[r])
	}
	for _, place := range places {
		for _, d := range f.list(place) {
			if len(f.kernels) > maxReleases {
				return api.Errorf(api.KindInvalid, "it holds more than %d kernels", maxReleases)
			}
			if k := f.kernel(path.Join(place, d.Name())); k.kind != kindUnknown && !slices.ContainsFunc(f.kernels, func(o kernelFile) bool { return os.SameFile(o.info, k.info) }) {
				f.kernels = append(f.kernels, k)
			}
		}
	}
	return nil
}

// open opens a file to be read; what has become a pipe holds nobody up.
func (f *folder) open(p string) (*os.File, error) {
	return f.root.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// list is a folder's entries, none where it is not there.
func (f *folder) list(dir string) []fs.DirEntry {
	entries, err := fs.ReadDir(f.root.FS(), dir)
	if err != nil || len(entries) > maxFolderFiles {
		return nil
	}
	return entries
}

// isModules says whether dir holds the modules of one kernel.
func (f *folder) isModules(dir string) bool {
	for _, name := range []string{"modules.order", "modules.builtin", "modules.dep", "kernel"} {
		if _, err := f.root.Stat(path.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// kernel looks whether a file is a kernel for guests; else its kind is unknown.
func (f *folder) kernel(p string) kernelFile {
	var none kernelFile
	base := path.Base(p)
	if !strings.HasPrefix(base, "vmlinuz") && !strings.HasPrefix(base, "vmlinux") && !strings.HasPrefix(base, "bzImage") {
		return none
	}
	fi, err := f.root.Stat(p)
	if err != nil || !fi.Mode().IsRegular() {
		return none
	}
	file, err := f.open(p)
	if err != nil {
		return none
	}
	defer func() { _ = file.Close() }()
	head := make([]byte, sniffBytes)
	n, _ := io.ReadFull(file, head)
	k := kernelFile{path: p, kind: sniff(head[:n]), info: fi}
	switch k.kind {
	case kindBzImage:
		k.release = bzImageRelease(file, head[:n])
	case kindVMLinux:
		if t := head[16]; t != 2 && t != 3 {
			return none // an object on the way to a kernel
		}
		t, err := scan(file, nil)
		if err != nil {
			return none
		}
		k.release = firstWord(t.version)
	case kindOther:
	default:
		return none
	}
	return k
}

// bzImageRelease reads the release in a bzImage without unpacking it.
func bzImageRelease(r io.ReaderAt, head []byte) string {
	if len(head) < headerSize {
		return ""
	}
	b := make([]byte, 256)
	n, _ := r.ReadAt(b, int64(head[offKernelVersion])+int64(head[offKernelVersion+1])<<8+0x200)
	return firstWord(printable(b[:n]))
}

// choose gives the one kernel of the folder. Of one release in two forms it is
// the bzImage: a vmlinux beside it is for debuggers.
func (f *folder) choose() (kernelFile, error) {
	var best kernelFile
	var releases []string
	for _, k := range f.kernels {
		if !slices.Contains(releases, k.release) {
			releases = append(releases, k.release)
		}
		if best.kind == kindUnknown || k.kind == kindBzImage && best.kind != kindBzImage {
			best = k
		}
	}
	switch {
	case len(f.kernels) == 0:
		return best, api.Errorf(api.KindInvalid, "it holds no kernel: no vmlinuz*, vmlinux* or bzImage* in it, in boot/, in arch/x86/boot/ or beside the modules")
	case len(releases) > 1:
		var all []string
		for _, k := range f.kernels {
			all = append(all, k.path)
		}
		e := api.Errorf(api.KindInvalid, "it holds %d kernels: %s; give one of them, and with --modules its modules", len(all), strings.Join(all, ", "))
		e.Candidates = all
		return best, e
	}
	return best, nil
}

// modulesOf is where the modules of a release are; empty where the folder has
// none at all. Those of others alone are an error.
func (f *folder) modulesOf(release string) (string, error) {
	if dir := f.modules[release]; dir != "" || len(f.releases) == 0 {
		return dir, nil
	}
	return "", api.Errorf(api.KindInvalid, "the kernel is %s, the modules are for %s", release, strings.Join(f.releases, ", "))
}

// config is the configuration of a release, if the folder has one.
func (f *folder) config(release string) (config, string) {
	for _, p := range []string{"boot/config-" + release, "config-" + release, f.modules[release] + "/config", ".config"} {
		file, err := f.open(path.Clean(p))
		if err != nil {
			continue
		}
		fi, err := file.Stat()
		var c config
		if err == nil && fi.Mode().IsRegular() {
			c, err = parseConfig(file)
		}
		_ = file.Close()
		if err == nil && c != nil {
			return c, p
		}
	}
	return nil, ""
}

// members gives what lies below dir as an archive does whose root is under.
func (f *folder) members(dir, under string) (*folderMembers, error) {
	m := &folderMembers{folder: f, dir: dir, under: under}
	err := fs.WalkDir(f.root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		if dir == "." {
			below = strings.TrimPrefix(p, ".")
		}
		if noModule(below) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if len(m.paths) == maxFolderFiles {
			return api.Errorf(api.KindInvalid, "its modules are more than %d files", maxFolderFiles)
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		m.total += fi.Size()
		m.paths = append(m.paths, p)
		return nil
	})
	return m, err
}

// noModule says whether what lies in a folder of modules is none of them: where
// the kernel was built on the user's own machine, the kernel, and what goes with it.
func noModule(below string) bool {
	for _, name := range []string{"vmlinu", "bzImage", "config", "System.map"} {
		if strings.HasPrefix(below, name) {
			return true
		}
	}
	return below == "build" || below == "source"
}

// folderMembers reads a folder as archive/tar reads an archive.
type folderMembers struct {
	folder     *folder
	dir, under string
	paths      []string
	total      int64
	file       *os.File
	r          io.Reader
}

func (m *folderMembers) Next() (*tar.Header, error) {
	m.close()
	if len(m.paths) == 0 {
		return nil, io.EOF
	}
	p := m.paths[0]
	m.paths = m.paths[1:]
	fi, err := m.folder.root.Lstat(p)
	if err != nil {
		return nil, err
	}
	link := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		if link, err = m.folder.root.Readlink(p); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	h.Name = path.Join(m.under, strings.TrimPrefix(p, m.dir))
	h.Uid, h.Gid, h.Uname, h.Gname, h.Mode = 0, 0, "", "", h.Mode&0o755
	if h.Typeflag == tar.TypeReg {
		if m.file, err = m.folder.open(p); err != nil {
			return nil, err
		}
		m.r = bufio.NewReaderSize(io.LimitReader(m.file, h.Size), 64<<10)
	}
	return h, nil
}

func (m *folderMembers) Read(p []byte) (int, error) {
	if m.r == nil {
		return 0, io.EOF
	}
	return m.r.Read(p)
}

func (m *folderMembers) close() {
	if m.file != nil {
		_ = m.file.Close()
		m.file, m.r = nil, nil
	}
}

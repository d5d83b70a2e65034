package kernel

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/initramfs"
)

// maxModule bounds one module, in bytes, uncompressed: it is the only thing
// that is held in memory whole, one at a time. maxModules bounds all of them on
// the disk, maxWords what they say of themselves, which is kept in memory, maxList
// a list of modules that came with them, ten times Ubuntu's, and maxStored one
// file that is no module.
const (
	maxModule  = 64 << 20
	maxModules = 8 << 30
	maxWords   = 32 << 20
	maxList    = 8 << 20
	maxStored  = 256 << 20
)

// module is one module of the tree.
type module struct {
	path string // below lib/modules/<release>
	info modinfo
	off  int64 // in the spool, uncompressed
	size int64
}

// moduleSet is the tree of modules, as far as it was read.
type moduleSet struct {
	release string
	time    time.Time // of the newest member; what we add gets it
	list    []module
	byName  map[string]int
	builtin map[string]bool
	// builtinAliases are those of what the kernel has built in.
	builtinAliases []moduleAlias
	extra          graph // of a modules.dep that came with the tree
	spool          *os.File
	end            int64
	words          int64    // of all modules about themselves, in bytes
	seen           []string // each member as content counts it
}

// newSpool opens the file that holds all modules until it is known which are
// needed. It has no name any more, so nothing has to remove it.
func newSpool(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// ours are the indexes we write ourselves; what came with the tree makes way.
var ours = [...]string{
	"modules.dep", "modules.dep.bin", "modules.alias", "modules.alias.bin", "modules.softdep",
	"modules.symbols", "modules.symbols.bin", "modules.builtin.bin", "modules.builtin.alias.bin", "modules.devname",
}

// add takes one member of lib/modules; name is <release>/… and below.
func (s *moduleSet) add(h *tar.Header, name string, r io.Reader, tw *tar.Writer) error {
	release, below, _ := strings.Cut(name, "/")
	if release == "" {
		return nil
	}
	if s.release == "" {
		s.release = release
	}
	if release != s.release {
		return fmt.Errorf("modules of two kernels, %.64s and %.64s", s.release, release)
	}
	if h.ModTime.After(s.time) {
		s.time = h.ModTime
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		s.count(h, below, nil)
		fallthrough
	case tar.TypeDir: // what is in it counts
		return tw.WriteHeader(ext4.Member(h, name, ""))
	case tar.TypeReg:
	default:
		return fmt.Errorf("member %.80q is neither a file, a folder nor a link", name)
	}
	if h.Size > maxStored {
		return fmt.Errorf("member %.80q has %d bytes", name, h.Size)
	}
	sum := sha256.New()
	if err := s.addFile(h, name, below, io.TeeReader(r, sum), tw); err != nil {
		return err
	}
	if !slices.Contains(ours[:], below) {
		s.count(h, below, sum.Sum(nil))
	}
	return nil
}

// count notes a member for content.
func (s *moduleSet) count(h *tar.Header, below string, sum []byte) {
	s.seen = append(s.seen, fmt.Sprintf("%s\x00%c\x00%s\x00%x", below, h.Typeflag, h.Linkname, sum))
}

// content is a digest of the kernel and all its modules, in whichever order they
// came and whenever they were made. The indexes, which we write, do not count.
func (s *moduleSet) content(vmlinux string) string {
	slices.Sort(s.seen)
	sum := sha256.New()
	_, _ = io.WriteString(sum, vmlinux+"\n"+strings.Join(s.seen, "\n"))
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// addFile takes a regular file.
func (s *moduleSet) addFile(h *tar.Header, name, below string, r io.Reader, tw *tar.Writer) error {
	switch below {
	case "modules.dep", "modules.builtin", "modules.builtin.modinfo": // read into memory
		if h.Size > maxList {
			return fmt.Errorf("member %.80q has %d bytes, more than %d", name, h.Size, maxList)
		}
	}
	if below == "modules.dep" {
		var err error
		s.extra, _, err = parseDep(r)
		return err
	}
	if slices.Contains(ours[:], below) {
		return nil
	}
	if err := tw.WriteHeader(ext4.Member(h, name, "")); err != nil {
		return err
	}
	if strings.Contains(path.Base(below), ".ko") {
		return s.addModule(h, below, r, tw)
	}
	if below != "modules.builtin" && below != "modules.builtin.modinfo" {
		_, err := io.Copy(tw, r)
		return err
	}
	var keep bytes.Buffer
	if _, err := io.Copy(io.MultiWriter(tw, &keep), r); err != nil {
		return err
	}
	if below == "modules.builtin.modinfo" {
		s.builtinAliases = parseBuiltinAliases(keep.Bytes())
		return nil
	}
	var err error
	s.builtin, err = parseBuiltin(&keep)
	return err
}

// moduleAlias is another name of a module.
type moduleAlias struct{ alias, module string }

// parseBuiltinAliases reads the aliases out of modules.builtin.modinfo, which
// has entries module.key=value, each closed by a zero byte.
func parseBuiltinAliases(b []byte) []moduleAlias {
	var list []moduleAlias
	for entry := range bytes.SplitSeq(b, []byte{0}) {
		k, v, ok := strings.Cut(string(entry), "=")
		module, key, dotted := strings.Cut(k, ".")
		if ok && dotted && key == "alias" {
			list = append(list, moduleAlias{v, moduleName(module)})
		}
	}
	return list
}

func (s *moduleSet) addModule(h *tar.Header, below string, r io.Reader, tw *tar.Writer) error {
	if h.Size > maxModule {
		return fmt.Errorf("module %.80q has %d bytes", below, h.Size)
	}
	stored := make([]byte, h.Size)
	if _, err := io.ReadFull(r, stored); err != nil {
		return err
	}
	if _, err := tw.Write(stored); err != nil {
		return err
	}
	plain, err := uncompressed(below, stored)
	if err != nil {
		return fmt.Errorf("module %.80q: %w", below, err)
	}
	info, err := readModinfo(plain)
	if err != nil {
		return fmt.Errorf("module %.80q: %w", below, err)
	}
	name := moduleName(below)
	if name == "" {
		return fmt.Errorf("module %.80q has no name", below)
	}
	s.words += info.bytes
	if s.words > maxWords || s.end+int64(len(plain)) > maxModules {
		return fmt.Errorf("module %.80q is one too many", below)
	}
	if _, err := s.spool.WriteAt(plain, s.end); err != nil {
		return err
	}
	if s.byName == nil {
		s.byName = map[string]int{}
	}
	s.byName[name] = len(s.list)
	info.name = name
	s.list = append(s.list, module{path: below, info: info, off: s.end, size: int64(len(plain))})
	s.end += int64(len(plain))
	return nil
}

// uncompressed gives the module's ELF file, by the suffix of its name.
func uncompressed(name string, b []byte) ([]byte, error) {
	var r io.Reader
	switch path.Ext(name) {
	case ".ko":
		return b, nil
	case ".xz":
		z, err := xz.NewReader(bytes.NewReader(b), maxModule)
		if err != nil {
			return nil, err
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxModule))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	case ".gz":
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		r = z
	default:
		return nil, fmt.Errorf("compressed in an unknown way")
	}
	var out bytes.Buffer
	if _, err := io.Copy(&capped{w: &out, left: maxModule}, r); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// capped fails when more than left bytes are written.
type capped struct {
	w    io.Writer
	left int64
}

func (c *capped) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		return 0, fmt.Errorf("larger than %d bytes", int64(maxModule))
	}
	c.left -= int64(len(p))
	return c.w.Write(p)
}

// graph is who needs whom: what the modules say, and what a modules.dep that
// came with them says.
func (s *moduleSet) graph() graph {
	g := graph{}
	maps.Copy(g, s.extra)
	for _, m := range s.list {
		if len(g[m.info.name]) == 0 {
			g[m.info.name] = m.info.depends
		}
	}
	for name := range g {
		if _, ok := s.byName[name]; !ok {
			delete(g, name) // named, but not there
		}
	}
	return g
}

// bootGraph is graph with what modules ask for by a soft dependency, which only
// modprobe would see to. Several modules may answer to one name: the generic one
// runs on every processor.
func (s *moduleSet) bootGraph() graph {
	g := s.graph()
	aliases := map[string]string{}
	for _, m := range s.list {
		for _, a := range m.info.aliases {
			if old := aliases[a]; old == "" || !strings.HasSuffix(old, "_generic") && (strings.HasSuffix(m.info.name, "_generic") || m.info.name < old) {
				aliases[a] = m.info.name
			}
		}
	}
	for _, m := range s.list {
		for _, want := range softNeeds(m.info.softdep) {
			name := moduleName(want)
			if _, ok := s.byName[name]; !ok {
				name = aliases[want]
			}
			if name != "" && name != m.info.name && !s.builtin[moduleName(want)] {
				g[m.info.name] = append(slices.Clip(g[m.info.name]), name)
			}
		}
	}
	return g
}

// softNeeds lists what is to be loaded before a module (modprobe.d(5)).
func softNeeds(softdep []string) []string {
	var out []string
	for _, line := range softdep {
		before := false
		for _, word := range strings.Fields(line) {
			switch {
			case strings.HasSuffix(word, ":"):
				before = word == "pre:"
			case before:
				out = append(out, word)
			}
		}
	}
	return out
}

// sameRelease checks that modules were built for the kernel whose folder they
// lie in, as far as they say what they were built for.
func (s *moduleSet) sameRelease(names []string) error {
	for _, name := range names {
		if m := s.list[s.byName[name]].info; m.release != "" && m.release != s.release {
			return api.Errorf(api.KindInvalid, "its kernel is %s, its module %s is for %.64s", s.release, name, m.release)
		}
	}
	return nil
}

// open gives a module as a part of the initramfs.
func (s *moduleSet) open(name string) (initramfs.Module, error) {
	i, ok := s.byName[name]
	if !ok {
		return initramfs.Module{}, fmt.Errorf("no module %s", name)
	}
	m := s.list[i]
	return initramfs.Module{Name: m.info.name + ".ko", Size: m.size, Data: io.NewSectionReader(s.spool, m.off, m.size)}, nil
}

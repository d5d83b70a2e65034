package kernel

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
)

// maxTree bounds an unpacked Debian package, in bytes.
const maxTree = 16 << 30

// ImportOptions say what a kernel is made of.
type ImportOptions struct {
	Name string // that the kernel is to have
	// Path is a Debian package, a folder, a bzImage or a vmlinux, absolute.
	Path string
	// Modules is a folder or a package with the modules, where Path has none;
	// absolute or empty.
	Modules string
	// Unchecked takes a kernel also when no guest seems able to boot with it.
	Unchecked bool
	Report    func(debian.Progress)
}

// Import makes the files of a kernel in dir, which must exist and be empty, out
// of what the user has. What it reads it leaves alone. On an error what it made
// is left for the caller, who owns dir, to remove.
func Import(ctx context.Context, dir layout.KernelDir, opt ImportOptions) (Manifest, error) {
	i := &importer{ctx: ctx, opt: opt, dir: dir}
	m, err := unpack(ctx, dir, opt.Unchecked, i.read)
	if err != nil {
		return Manifest{}, i.explain(err)
	}
	if err := pull.WriteManifest(dir.Manifest(), m); err != nil {
		return Manifest{}, i.explain(err)
	}
	return m, nil
}

// importer is one import.
type importer struct {
	ctx  context.Context
	opt  ImportOptions
	dir  layout.KernelDir
	need int64 // of room, in bytes
	u    *unpacker
	bare bool // a kernel file without modules
}

// explain gives an error the name of what was read, its kind and a way on.
func (i *importer) explain(err error) error {
	if ctxErr := i.ctx.Err(); ctxErr != nil {
		return context.Cause(i.ctx)
	}
	if isFull(err) {
		return api.Errorf(api.KindNoSpace, "cannot import kernel from %s: it needs about %s in %s: %w",
			i.opt.Path, bytesSize(i.need), i.dir.Dir, err).WithHint("banger vm prune --dry-run")
	}
	var own *api.Error
	if errors.As(err, &own) && own.Kind == api.KindNoSpace {
		return own // of room, which names all of it
	}
	kind := api.KindInvalid // what is wrong is wrong with the file
	switch {
	case errors.As(err, &own):
		kind = own.Kind
	case errors.Is(err, fs.ErrPermission):
		kind = api.KindDenied
	case errors.Is(err, fs.ErrNotExist):
		kind = api.KindNotFound
	case errors.Is(err, unix.EIO):
		kind = api.KindInternal
	}
	out := api.Errorf(kind, "cannot import kernel from %s: %w", i.opt.Path, err)
	if own != nil {
		out.Hint, out.Candidates = own.Hint, own.Candidates
	}
	switch {
	case out.Hint != "":
	case kind == api.KindDenied:
		out.Hint = "ls -ld " + i.opt.Path
	case kind == api.KindUnsupported && i.bare && i.u.release != "" && i.opt.Modules == "":
		out.Hint = fmt.Sprintf("banger kernel import %s --modules /lib/modules/%s --name %s", i.opt.Path, i.u.release, i.opt.Name)
	}
	return out
}

// read hands the user's files to the unpacker.
func (i *importer) read(u *unpacker, tw *tar.Writer) error {
	i.u = u
	fi, err := os.Stat(i.opt.Path)
	if err != nil {
		return err
	}
	u.source["path"], u.source["reference"] = i.opt.Path, i.opt.Path
	if i.opt.Modules != "" {
		u.source["modules"] = i.opt.Modules
	}
	switch {
	case fi.IsDir():
		err = i.readFolder(u, tw)
	case fi.Mode().IsRegular():
		err = i.readFile(u, tw)
	default:
		return api.Errorf(api.KindInvalid, "it is neither a file nor a folder")
	}
	if err != nil || i.opt.Modules == "" {
		return err
	}
	if len(u.modules.list) > 0 {
		return api.Errorf(api.KindInvalid, "it has modules of its own; --modules is for a kernel without")
	}
	if err := i.readModules(u, tw); err != nil {
		return fmt.Errorf("its modules, %s: %w", i.opt.Modules, err)
	}
	return nil
}

// room checks that the disk has room for what is about to be made.
func (i *importer) room(bytes int64) error {
	i.need += bytes
	return debian.CheckSpace("import kernel from "+i.opt.Path, debian.Need{Dir: i.dir.Dir, Bytes: i.need})
}

// open opens a file of the user's to be read once, from its beginning to its end.
func (i *importer) open(path string) (*os.File, *counter, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // no pipe shall hold us up
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = api.Errorf(api.KindInvalid, "it is no regular file")
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	c := &counter{ctx: i.ctx, r: f, total: fi.Size(), report: i.opt.Report, stage: "unpacking " + filepath.Base(path), sum: sha256.New()}
	c.tell()
	return f, c, nil
}

func (i *importer) readFile(u *unpacker, tw *tar.Writer) error {
	f, c, err := i.open(i.opt.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, sniffBytes)
	n, _ := f.ReadAt(head, 0)
	switch kind := sniff(head[:n]); kind {
	case kindDeb:
		u.source["kind"] = string(kind)
		err = i.readDeb(u, tw, c, false)
	case kindBzImage, kindVMLinux:
		i.bare = true
		u.source["kind"] = string(kind)
		if err := i.room(unpackedSize(kind, c.total)); err != nil {
			return err
		}
		if err = u.kernel(filepath.Base(i.opt.Path), c); err == nil {
			i.beside(u)
		}
	default:
		return errNoKernel(kind, head[:n])
	}
	if err != nil {
		return err
	}
	u.source["digest"], err = c.digest()
	return err
}

// unpackedSize is about what the vmlinux of a kernel file takes.
func unpackedSize(kind fileKind, size int64) int64 {
	if kind == kindBzImage {
		return 8*size + 16<<20
	}
	return min(size, maxVMLinux) + 16<<20
}

// beside looks whether the configuration of a bare kernel lies where packages
// put it.
func (i *importer) beside(u *unpacker) {
	path := filepath.Join(filepath.Dir(i.opt.Path), "config-"+u.release)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
		if u.config, err = parseConfig(f); err == nil {
			u.source["config"] = path
		}
	}
}

// readDeb takes the kernel and the modules of a package, or the modules alone.
func (i *importer) readDeb(u *unpacker, tw *tar.Writer, c *counter, modulesOnly bool) error {
	d, err := openDeb(c)
	if err != nil {
		return err
	}
	defer d.close()
	if arch := d.control["Architecture"]; arch != "amd64" && arch != "all" {
		return otherMachine(fmt.Sprintf("%.32s", arch))
	}
	if err := i.room(3*max(d.installedBytes(), 2*c.total) + 64<<20); err != nil {
		return err
	}
	prefix := ""
	if modulesOnly {
		prefix = "modules_"
	}
	u.source[prefix+"package"], u.source[prefix+"package_version"] = d.control["Package"], d.control["Version"]
	tree := &selected{members: tar.NewReader(&limited{r: d.data, left: maxTree}), modulesOnly: modulesOnly}
	if err := u.read(tree, tw); err != nil {
		return err
	}
	if u.release == "" && !modulesOnly {
		e := api.Errorf(api.KindInvalid, "the package %.64s holds no kernel", d.control["Package"])
		if other := d.dependsOnKernel(); other != "" {
			e = api.Errorf(api.KindInvalid, "the package %.64s holds no kernel, it points at %s", d.control["Package"], other).
				WithHint("apt-get download %s", other)
		}
		return e
	}
	return nil
}

func (i *importer) readFolder(u *unpacker, tw *tar.Writer) error {
	f, err := openFolder(i.opt.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.root.Close() }()
	u.source["kind"] = "folder"
	k, err := f.choose()
	if err != nil {
		if first := api.AsError(err).Candidates; len(first) > 0 {
			err = api.AsError(err).WithHint("banger kernel import --help")
		}
		return err
	}
	modules, err := f.modulesOf(k.release)
	if err != nil {
		return err
	}
	if err := i.room(unpackedSize(k.kind, k.info.Size())); err != nil {
		return err
	}
	file, err := f.open(k.path)
	if err != nil {
		return err
	}
	c := &counter{ctx: i.ctx, r: file, total: k.info.Size(), report: i.opt.Report, stage: "unpacking " + k.path, sum: sha256.New()}
	err = u.kernel(k.path, c)
	if err == nil {
		u.source["vmlinuz"] = k.path
		u.source["digest"], err = c.digest()
	}
	_ = file.Close()
	if err != nil {
		return err
	}
	var at string
	if u.config, at = f.config(u.release); u.config != nil {
		u.source["config"] = at
	}
	if modules == "" {
		return nil
	}
	return i.readTree(u, tw, f, modules)
}

// readTree takes the modules of the kernel's release out of a folder.
func (i *importer) readTree(u *unpacker, tw *tar.Writer, f *folder, dir string) error {
	tree, err := f.members(dir, "lib/modules/"+u.release)
	if err != nil {
		return err
	}
	defer tree.close()
	if err := i.room(5 * tree.total); err != nil { // stored, and uncompressed
		return err
	}
	c := &counter{ctx: i.ctx, r: tree, total: tree.total, report: i.opt.Report, stage: "reading the modules", sum: sha256.New()}
	return u.read(struct {
		header
		io.Reader
	}{tree, c}, tw)
}

type header interface{ Next() (*tar.Header, error) }

// readModules takes the modules of --modules.
func (i *importer) readModules(u *unpacker, tw *tar.Writer) error {
	fi, err := os.Stat(i.opt.Modules)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		f, c, err := i.open(i.opt.Modules)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := i.readDeb(u, tw, c, true); err != nil {
			return err
		}
		if len(u.modules.list) == 0 {
			return api.Errorf(api.KindInvalid, "it holds no modules")
		}
		u.source["modules_digest"], err = c.digest()
		return err
	}
	f, err := openFolder(i.opt.Modules)
	if err != nil {
		return err
	}
	defer func() { _ = f.root.Close() }()
	dir, err := f.modulesOf(u.release)
	if err != nil {
		return err
	}
	if dir == "" {
		return api.Errorf(api.KindInvalid, "it holds no modules: no lib/modules/%s, no modules.order, modules.builtin or kernel", u.release)
	}
	return i.readTree(u, tw, f, dir)
}

// selected is the part of a tree that is asked for.
type selected struct {
	members
	modulesOnly bool
}

func (s *selected) Next() (*tar.Header, error) {
	for {
		h, err := s.members.Next()
		if err != nil || !s.modulesOnly || strings.Contains(h.Name, "lib/modules/") {
			return h, err
		}
	}
}

// limited fails when more than left bytes are read: a small archive may unpack to
// any size.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, api.Errorf(api.KindInvalid, "it unpacks to more than %s", bytesSize(maxTree))
	}
	return n, err
}

// counter reads, tells how far it is, sums up, and heeds the context.
type counter struct {
	ctx         context.Context
	r           io.Reader
	done, total int64
	report      func(debian.Progress)
	stage       string
	sum         hash.Hash
}

func (c *counter) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.done += int64(n)
	_, _ = c.sum.Write(p[:n])
	if n > 0 {
		c.tell()
	}
	return n, err
}

func (c *counter) tell() {
	if c.report != nil {
		c.report(debian.Progress{Stage: c.stage, Done: min(c.done, c.total), Total: c.total, Unit: "bytes"})
	}
}

// digest reads the rest and gives the digest of all.
func (c *counter) digest() (string, error) {
	if _, err := io.Copy(io.Discard, c); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(c.sum.Sum(nil)), nil
}

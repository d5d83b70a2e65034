package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// Files of the user's own: registered where they are, or promoted, copied under
// our management.
const (
	KindRegistered = "registered"
	KindPromoted   = "promoted"

	fromFile  = "file"  // Ref is the path of a root file system
	fromImage = "image" // Ref is the id of a registered image

	roleRoot = "root"
)

// Register begins the registration of a root file system of the user's own. It is
// read, never changed and never deleted.
func (m *Manager) Register(ctx context.Context, req api.RegisterImage) (api.Operation, error) {
	if req.Initrd != "" {
		return api.Operation{}, api.Errorf(api.KindUnsupported,
			"cannot register image %q: an initrd of your own is not run: guests begin in banger's, which mounts the disks; what yours does belongs into the image", clip(req.Name)).
			WithHint("banger image register --help")
	}
	if err := checkName(req.Name); err != nil {
		return api.Operation{}, err
	}
	if !filepath.IsAbs(req.Root) {
		return api.Operation{}, api.Errorf(api.KindInvalid, "cannot register image %q: %q is not an absolute path", req.Name, clip(req.Root))
	}
	if err := m.checkKernel(ctx, req.Kernel); err != nil {
		return api.Operation{}, err
	}
	if err := checkSeed(req.WorkSeed); err != nil {
		return api.Operation{}, err
	}
	if _, err := lookAt(roleRoot, req.Root); err != nil {
		return api.Operation{}, err // said at once rather than by an operation
	}
	return m.pulls.Begin(ctx, pull.Job{
		Kind: kindRegister, Name: req.Name, Named: true, Replace: req.Replace,
		Source: pull.Source{Kind: fromFile, Ref: filepath.Clean(req.Root), With: with(withKernel, req.Kernel, withSeed, req.WorkSeed)},
	})
}

// Promote begins copying the file of a registered image under our management. The
// image stays what it is, for its VMs too, and needs the user's file no more.
func (m *Manager) Promote(ctx context.Context, ref string, req api.PromoteImage) (api.Operation, error) {
	if err := checkSeed(req.WorkSeed); err != nil {
		return api.Operation{}, err
	}
	i, err := m.pulls.Find(ctx, ref)
	if err != nil {
		return api.Operation{}, err
	}
	switch i.Kind {
	case KindRegistered:
	case KindPromoted:
		return m.done(ctx, kindPromote, i)
	default:
		return api.Operation{}, api.Errorf(api.KindBadState, "cannot promote image %q: its kind is %s, and its files are managed already", ref, i.Kind).
			WithHint("banger image show %s", ref)
	}
	if i.Name == "" {
		return api.Operation{}, api.Errorf(api.KindBadState, "cannot promote image %q: it has lost its name", ref).WithHint("banger image list")
	}
	if _, err := m.pulls.Local(ctx, ref); err != nil {
		return api.Operation{}, err
	}
	return m.pulls.Begin(ctx, pull.Job{Kind: kindPromote, Name: i.Name, Named: true, Source: pull.Source{Kind: fromImage, Ref: i.ID, With: with(withSeed, req.WorkSeed)}})
}

// done is an operation that had nothing to do.
func (m *Manager) done(ctx context.Context, kind string, i store.Image) (api.Operation, error) {
	v, err := m.pulls.Show(ctx, first(i.Name, i.ID))
	if err != nil {
		return api.Operation{}, err
	}
	return m.ops.Finished(ctx, kind, i.Name, v)
}

// with is a map of those pairs of key and value that have a value.
func with(pairs ...string) map[string]string {
	m := map[string]string{}
	for n := 0; n+1 < len(pairs); n += 2 {
		if pairs[n+1] != "" {
			m[pairs[n]] = pairs[n+1]
		}
	}
	return m
}

func checkSeed(path string) error {
	if path != "" && !filepath.IsAbs(path) {
		return api.Errorf(api.KindInvalid, "cannot use work seed %q: it is not an absolute path", clip(path))
	}
	return nil
}

// lookAt takes down what tells that a file changed.
func lookAt(role, path string) (store.UserFile, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return store.UserFile{}, api.Errorf(fileKind(err), "cannot use %s: %w", path, err).WithHint("ls -l %s", path)
	}
	if !fi.Mode().IsRegular() {
		return store.UserFile{}, api.Errorf(api.KindInvalid, "cannot use %s: it is not a regular file", path).WithHint("ls -l %s", path)
	}
	f := store.UserFile{Role: role, Path: path, Size: fi.Size(), ModTime: fi.ModTime().UTC()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		f.Inode, f.Device = st.Ino, st.Dev
	}
	return f, nil
}

// unchanged says whether a file is as it was last seen; an error when it cannot be
// looked at, os.ErrNotExist when it is gone.
func unchanged(f store.UserFile) (bool, error) {
	now, err := lookAt(f.Role, f.Path)
	if err != nil {
		return false, err
	}
	now.Digest = f.Digest
	return now.Size == f.Size && now.ModTime.Equal(f.ModTime) && now.Inode == f.Inode && now.Device == f.Device, nil
}

func fileKind(err error) api.Kind {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return api.KindNotFound
	case errors.Is(err, os.ErrPermission):
		return api.KindDenied
	case errors.Is(err, syscall.EIO): // the disk is to blame, not the file
		return api.KindInternal
	}
	return api.KindInvalid
}

// checkExt4 refuses what is no ext4 file system that a guest can mount, or is
// larger than its file.
func checkExt4(path string, size int64) error {
	bad := func(why string) error {
		return api.Errorf(api.KindInvalid, "cannot use %s as a root file system: %s", path, why).WithHint("file -s %s", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return api.Errorf(fileKind(err), "cannot use %s: %w", path, err).WithHint("ls -l %s", path)
	}
	defer func() { _ = f.Close() }()
	var head [2048]byte // the superblock is its second half
	if _, err := f.ReadAt(head[:], 0); err != nil {
		if errors.Is(err, io.EOF) {
			return bad("it is no ext4 file system: it is too short")
		}
		return api.Errorf(api.KindInternal, "cannot read %s: %w", path, err)
	}
	// kernel.org, ext4 disk layout: s_magic, s_log_block_size, s_blocks_count.
	sb, le := head[1024:], binary.LittleEndian
	if le.Uint16(sb[0x38:]) != 0xef53 {
		why := "it is no ext4 file system"
		if head[510] == 0x55 && head[511] == 0xaa {
			why += ", but a whole disk; take its root partition"
		}
		return bad(why)
	}
	shift := le.Uint32(sb[0x18:])
	if shift > 6 {
		return bad("its block size is impossible")
	}
	blocks := uint64(le.Uint32(sb[0x4:]))
	if le.Uint32(sb[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= uint64(le.Uint32(sb[0x150:])) << 32
	}
	if blocks == 0 || blocks > 1<<44 {
		return bad("its size is impossible")
	}
	if spans := blocks << (10 + shift); spans > uint64(size) {
		return bad(fmt.Sprintf("its file system spans %d bytes, the file has %d", spans, size))
	}
	if le.Uint32(sb[0x60:])&0x4 != 0 { // INCOMPAT_RECOVER
		return bad("its journal was never replayed: it is in use, or was not unmounted")
	}
	return nil
}

// own makes images of root file systems of the user's own.
type own struct{ m *Manager }

func (o own) Plan(ctx context.Context, from pull.Source, report pull.Report) (pull.Plan[store.Image], error) {
	var none pull.Plan[store.Image]
	file, err := lookAt(roleRoot, from.Ref)
	if err != nil {
		return none, err
	}
	if err := checkExt4(file.Path, file.Size); err != nil {
		return none, err
	}
	file.Digest, err = o.m.read(ctx, file, report)
	if err != nil {
		return none, err
	}
	// The same content elsewhere is another image: each stands for its own file.
	digest := digestText("registered\n" + file.Path + "\n" + file.Digest)
	id := idOf(digest)
	there, err := o.m.store.Image(ctx, id)
	stale := false
	if err == nil {
		wrong, cerr := o.m.check(there)
		stale = wrong != "" || cerr != nil
	}
	return pull.Plan[store.Image]{
		ID: id, Key: "registered " + id, InPlace: stale,
		Describe: func(i store.Image) store.Image { i.Reference = file.Path; return i },
		Make: func(_ context.Context, dir, _ string, _ pull.Report) (store.Image, error) {
			d := layout.ImageDir{Dir: dir}
			man := Manifest{Version: manifestVersion, Digest: file.Digest, SizeBytes: file.Size, Source: map[string]string{"path": file.Path}}
			i := man.record(KindRegistered, o.m.opt.Now())
			i.ID, i.Root, i.Files = id, file.Path, []store.UserFile{file}
			return i, pull.WriteManifest(d.Manifest(), man)
		},
	}, nil
}

// read gives the digest of a file of the user's own, which must not change
// meanwhile.
func (m *Manager) read(ctx context.Context, file store.UserFile, report pull.Report) (string, error) {
	digest, _, err := digestFile(ctx, file.Path, func(done int64) {
		report("reading "+file.Path, api.Progress{Done: done, Total: file.Size, Unit: "bytes"})
	})
	if err != nil {
		return "", api.Errorf(api.KindOf(err), "cannot read %s: %w", file.Path, err)
	}
	if same, err := unchanged(file); err != nil || !same {
		return "", api.Errorf(api.KindBadState, "cannot use %s: it changed while it was read", file.Path).WithHint("ls -l %s", file.Path)
	}
	return digest, nil
}

// promotions copy the file of a registered image.
type promotions struct{ m *Manager }

func (p promotions) Plan(ctx context.Context, from pull.Source, _ pull.Report) (pull.Plan[store.Image], error) {
	var none pull.Plan[store.Image]
	i, err := p.m.store.Image(ctx, from.Ref)
	if err != nil {
		return none, err
	}
	if len(i.Files) == 0 || i.Root == "" {
		return none, api.Errorf(api.KindBadState, "cannot promote image %q: it has no file of yours", i.Name)
	}
	file := i.Files[0]
	return pull.Plan[store.Image]{
		ID: i.ID, Key: "promoted " + i.ID, InPlace: true,
		Describe: func(n store.Image) store.Image {
			n.Reference, n.ReferenceDigest, n.Kernel = i.Reference, i.ReferenceDigest, i.Kernel
			return n
		},
		Make: func(ctx context.Context, dir, _ string, report pull.Report) (store.Image, error) {
			d := layout.ImageDir{Dir: dir}
			if err := copyFile(ctx, d.RootFS(), file.Path, report); err != nil {
				return store.Image{}, noSpace(err, dir)
			}
			if source := from.With[withSeed]; source != "" {
				_, err = addSeed(ctx, d, source, report)
			} else {
				err = keepSeed(ctx, d, p.m.layout.Image(i.ID))
			}
			if err != nil {
				return store.Image{}, noSpace(err, dir)
			}
			digest, size, err := digestFile(ctx, d.RootFS(), func(done int64) {
				report("checking the copy", api.Progress{Done: done, Total: file.Size, Unit: "bytes"})
			})
			if err != nil {
				return store.Image{}, err
			}
			if digest != file.Digest {
				return store.Image{}, api.Errorf(api.KindBadState, "cannot promote image %q: %s changed since it was registered", i.Name, file.Path).
					WithHint("banger image show %s", i.Name)
			}
			man := Manifest{Version: manifestVersion, Digest: digest, SizeBytes: size, Config: i.Config, Source: map[string]string{"path": file.Path}}
			n := man.record(KindPromoted, i.CreatedAt)
			n.ID = i.ID
			return n, pull.WriteManifest(d.Manifest(), man)
		},
	}, nil
}

// copyFile copies a file, sharing its blocks where the file system can, else
// leaving its holes holes. dst must not exist.
func copyFile(ctx context.Context, dst, src string, report pull.Report) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return api.Errorf(fileKind(err), "cannot read %s: %w", src, err)
	}
	defer func() { _ = in.Close() }()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return out.Sync()
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err == nil {
		if err := debian.CheckSpace("copy "+src, debian.Need{Dir: filepath.Dir(dst), Bytes: st.Blocks * 512}); err != nil {
			return err
		}
	}
	if err := out.Truncate(fi.Size()); err != nil {
		return err
	}
	const stage, step = "copying", 16 << 20
	for at := int64(0); at < fi.Size(); {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		if err != nil {
			data = at // no holes known here
		}
		end, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			end = fi.Size()
		}
		for at = data; at < end; {
			if ctx.Err() != nil {
				return api.Errorf(api.KindCancelled, "cannot copy %s: %w", src, context.Cause(ctx))
			}
			n, err := io.Copy(io.NewOffsetWriter(out, at), io.NewSectionReader(in, at, min(step, end-at)))
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("cannot copy %s: it became shorter", src)
			}
			at += n
			report(stage, api.Progress{Done: at, Total: fi.Size(), Unit: "bytes"})
		}
	}
	return out.Sync()
}

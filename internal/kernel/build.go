package kernel

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
)

// Manifest says what a kernel's folder holds. It is written last, so a folder
// with a manifest is whole.
type Manifest struct {
	Version     int               `json:"manifest_version"`
	Release     string            `json:"release"` // as uname -r says
	Arch        string            `json:"arch"`
	Digest      string            `json:"digest"`       // of vmlinux
	SizeBytes   int64             `json:"size_bytes"`   // of all files, as stored
	BootModules []string          `json:"boot_modules"` // in the order to load them
	Modules     int               `json:"modules"`      // in modules.ext4
	Source      map[string]string `json:"source"`
}

// manifestVersion is the generation of Manifest.
const manifestVersion = 1

// bootModules are what a guest needs before it has its disks and its link; the
// modules these need come along.
var bootModules = [...]string{"virtio_mmio", "virtio_blk", "virtio_console", "overlay", "virtio_net"}

// Recipe is a kernel as a Debian package.
type Recipe struct {
	Suite   string
	Package string
	// TreeBytes is about what the unpacked package with its downloads takes
	// while it is built, KernelBytes what the files made of it take.
	TreeBytes, KernelBytes int64
}

// BuildOptions are the host's part in a build.
type BuildOptions struct {
	Mirrors    debian.Mirrors
	AptOptions []string
	TempDir    string // see debian.Options
	Report     func(debian.Progress)
}

// Build fetches the package and makes the files of a kernel in dir, which must
// exist and be empty: vmlinux, modules.ext4, boot.cpio and manifest.json. On an
// error what it made is left for the caller, who owns dir, to remove.
func Build(ctx context.Context, dir layout.KernelDir, recipe Recipe, opt BuildOptions) (Manifest, error) {
	if err := debian.CheckSpace("build kernel",
		debian.Need{Dir: opt.TempDir, Bytes: recipe.TreeBytes}, debian.Need{Dir: dir.Dir, Bytes: recipe.KernelBytes}); err != nil {
		return Manifest{}, err
	}
	var m Manifest
	sources := opt.Mirrors.Sources(recipe.Suite)
	err := debian.Bootstrap(ctx, debian.Options{
		Suite: recipe.Suite, Variant: "extract", Packages: []string{recipe.Package}, Sources: sources,
		AptOptions: opt.AptOptions, TempDir: opt.TempDir, Report: opt.Report,
	}, func(r io.Reader) (err error) {
		m, err = Unpack(r, dir)
		return err
	})
	if err != nil {
		return Manifest{}, noSpace(err, dir.Dir)
	}
	m.Source["package"] = recipe.Package
	m.Source["suite"] = recipe.Suite
	m.Source["mirror"] = opt.Mirrors.Main
	if err := pull.WriteManifest(dir.Manifest(), m); err != nil {
		return Manifest{}, noSpace(err, dir.Dir)
	}
	return m, nil
}

// Unpack makes all files of a kernel but the manifest out of a tree that holds
// boot/vmlinuz-<release> and lib/modules/<release>, in one pass.
func Unpack(r io.Reader, dir layout.KernelDir) (Manifest, error) {
	u := unpacker{dir: dir, source: map[string]string{}}
	spool, err := newSpool(dir.Dir)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = spool.Close() }()
	u.modules = moduleSet{spool: spool}
	if err := ext4.Write(dir.Modules(), ext4.UUID("modules "+dir.Dir), func(tw *tar.Writer) error {
		if err := u.read(tar.NewReader(r), tw); err != nil {
			return err
		}
		return u.index(tw)
	}); err != nil {
		return Manifest{}, err
	}
	order, err := u.boot()
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{
		Version: manifestVersion, Release: u.release, Arch: runtime.GOARCH, Digest: u.digest,
		BootModules: order, Modules: len(u.modules.list), Source: u.source,
	}
	if m.SizeBytes, err = sizeOf(dir); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// sizeOf is what all files of a kernel take, as stored.
func sizeOf(dir layout.KernelDir) (int64, error) {
	var size int64
	for _, p := range []string{dir.VMLinux(), dir.Modules(), dir.BootModules()} {
		fi, err := os.Stat(p)
		if err != nil {
			return 0, err
		}
		size += fi.Size()
	}
	return size, nil
}

// unpacker sorts the members of one tree.
type unpacker struct {
	dir     layout.KernelDir
	release string // of the kernel file
	digest  string
	source  map[string]string
	modules moduleSet
}

func (u *unpacker) read(tr *tar.Reader, tw *tar.Writer) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("cannot read kernel package: %w", err)
		}
		name, err := ext4.MemberPath(h.Name)
		if err != nil {
			return fmt.Errorf("cannot read kernel package: %w", err)
		}
		name = strings.TrimPrefix(name, "usr/") // where /lib is a link to it
		switch {
		case strings.HasPrefix(name, "boot/vmlinuz-") && h.Typeflag == tar.TypeReg:
			if err := u.kernel(tr); err != nil {
				return err
			}
			u.source["vmlinuz"] = strings.TrimPrefix(name, "boot/")
		case strings.HasPrefix(name, "lib/modules/"):
			if err := u.modules.add(h, strings.TrimPrefix(name, "lib/modules/"), tr, tw); err != nil {
				return fmt.Errorf("cannot read kernel package: %w", err)
			}
		}
	}
	switch {
	case u.release == "":
		return api.Errorf(api.KindInvalid, "cannot use kernel package: it holds no boot/vmlinuz file")
	case len(u.modules.list) == 0:
		return api.Errorf(api.KindInvalid, "cannot use kernel package: it holds no modules")
	case u.modules.release != u.release:
		return api.Errorf(api.KindInvalid, "cannot use kernel package: its kernel is %s, its modules are for %s", u.release, u.modules.release)
	}
	return nil
}

// kernel writes vmlinux.
func (u *unpacker) kernel(r io.Reader) error {
	if u.release != "" {
		return api.Errorf(api.KindInvalid, "cannot use kernel package: it holds more than one kernel")
	}
	f, err := os.OpenFile(u.dir.VMLinux(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	sum := sha256.New()
	version, err := ExtractVMLinux(r, io.MultiWriter(f, sum))
	u.release = firstWord(version)
	u.source["version"] = version
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	u.digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return err
}

// index writes the indexes that modprobe in the guest wants.
func (u *unpacker) index(tw *tar.Writer) error {
	return u.modules.writeIndexes(tw)
}

// boot writes boot.cpio and gives its modules in order.
func (u *unpacker) boot() ([]string, error) {
	order, err := u.modules.graph().closure(bootModules[:], u.modules.builtin)
	if err != nil {
		return nil, api.Errorf(api.KindUnsupported, "cannot boot a guest with kernel %s: %w", u.release, err)
	}
	f, err := os.OpenFile(u.dir.BootModules(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	var parts []initramfs.Module
	for _, name := range order {
		part, err := u.modules.open(name)
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		parts = append(parts, part)
	}
	err = initramfs.WriteModules(f, parts)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return order, err
}

// ReadManifest reads the manifest in a kernel's folder. A missing one is an
// error that os.IsNotExist knows; one that cannot be understood is of kind
// internal and names the file.
func ReadManifest(dir layout.KernelDir) (Manifest, error) {
	return pull.ReadManifest("kernel", dir.Manifest(), parseManifest)
}

func parseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := pull.DecodeManifest(b, &m, &m.Version, manifestVersion); err != nil {
		return Manifest{}, err
	}
	if m.Release == "" || m.Digest == "" || filepath.Base(m.Release) != m.Release {
		return Manifest{}, errors.New("it is corrupt: no release or digest")
	}
	if m.Source == nil {
		m.Source = map[string]string{}
	}
	return m, nil
}

package kernel

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
)

// maxMembers bounds the members of a kernel's tree; Debian's largest has 5,000.
const maxMembers = 100_000

// members is a tree, member by member, as archive/tar gives them.
type members interface {
	Next() (*tar.Header, error)
	io.Reader
}

// Unpack makes all files of a kernel but the manifest out of a tree that holds
// boot/vmlinuz-<release> and lib/modules/<release>, in one pass.
func Unpack(ctx context.Context, r io.Reader, dir layout.KernelDir) (Manifest, error) {
	m, err := unpack(ctx, dir, false, func(u *unpacker, tw *tar.Writer) error { return u.read(tar.NewReader(r), tw) })
	if err != nil {
		return Manifest{}, fmt.Errorf("cannot use kernel package: %w", err)
	}
	return m, nil
}

// unpack makes all files of a kernel but the manifest out of what read hands to
// the unpacker. With unchecked a kernel is taken that lacks what guests need.
func unpack(ctx context.Context, dir layout.KernelDir, unchecked bool, read func(*unpacker, *tar.Writer) error) (Manifest, error) {
	u := &unpacker{dir: dir, source: map[string]string{}}
	spool, err := newSpool(dir.Dir)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = spool.Close() }()
	u.modules = moduleSet{spool: spool}
	if err := ext4.Write(dir.Modules(), ext4.UUID("modules "+dir.Dir), func(tw *tar.Writer) error {
		if err := read(u, tw); err != nil {
			return err
		}
		if err := u.whole(); err != nil {
			return err
		}
		return u.modules.writeIndexes(ctx, tw)
	}); err != nil {
		return Manifest{}, err
	}
	if err := u.check(unchecked); err != nil {
		return Manifest{}, err
	}
	plan, err := u.plan()
	if err != nil {
		return Manifest{}, err
	}
	if err := u.boot(plan); err != nil {
		return Manifest{}, err
	}
	m := Manifest{
		Version: manifestVersion, Release: u.release, Arch: runtime.GOARCH, Digest: u.digest,
		BootModules: plan.names(), Modules: len(u.modules.list), Source: u.source, Warnings: u.warnings, Content: u.modules.content(u.digest),
		Transports: u.transports,
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
	dir      layout.KernelDir
	file     string // the kernel file, as the tree calls it
	release  string // of the kernel file
	digest   string
	config   config // that lies beside the kernel; nil: none
	source   map[string]string
	warnings []string
	// transports are those that the check found the kernel fit for.
	transports []guestapi.Transport
	modules    moduleSet
}

// read takes all members of a tree.
func (u *unpacker) read(tree members, tw *tar.Writer) error {
	for n := 0; ; n++ {
		h, err := tree.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read it: %w", err)
		}
		if n == maxMembers {
			return api.Errorf(api.KindInvalid, "it has more than %d members", maxMembers)
		}
		name, err := ext4.MemberPath(h.Name)
		if err != nil {
			return fmt.Errorf("cannot read it: %w", err)
		}
		name = strings.TrimPrefix(name, "usr/") // where /lib is a link to it
		switch {
		case isKernelFile(name) && h.Typeflag == tar.TypeReg:
			if err := u.kernel(name, tree); err != nil {
				return err
			}
			u.source["vmlinuz"] = strings.TrimPrefix(name, "boot/")
		case strings.HasPrefix(name, "boot/config-") && h.Typeflag == tar.TypeReg:
			// Without it less is known of the kernel, which the check tells.
			u.config, _ = parseConfig(tree)
		case strings.HasPrefix(name, "lib/modules/"):
			if err := u.modules.add(h, strings.TrimPrefix(name, "lib/modules/"), tree, tw); err != nil {
				return fmt.Errorf("cannot read it: %w", err)
			}
		}
	}
}

// isKernelFile says whether a member is the kernel of a package.
func isKernelFile(name string) bool {
	return strings.HasPrefix(name, "boot/vmlinuz-") || strings.HasPrefix(name, "boot/vmlinux-")
}

// whole looks whether the tree had what makes a kernel.
func (u *unpacker) whole() error {
	switch {
	case u.release == "":
		return api.Errorf(api.KindInvalid, "it holds no boot/vmlinuz file")
	case u.modules.release == "":
		u.modules.release = u.release
	case u.modules.release != u.release:
		return api.Errorf(api.KindInvalid, "its kernel is %s, its modules are for %s", u.release, u.modules.release)
	}
	return nil
}

// boot writes boot.cpio.
func (u *unpacker) boot(plan bootPlan) error {
	if err := u.modules.sameRelease(plan.names()); err != nil {
		return err
	}
	f, err := os.OpenFile(u.dir.BootModules(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	var parts []initramfs.Module
	for _, l := range plan {
		for _, name := range l.modules {
			part, err := u.modules.open(name)
			if err != nil {
				_ = f.Close()
				return err
			}
			part.List = l.name
			parts = append(parts, part)
		}
	}
	err = initramfs.WriteModules(f, parts)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

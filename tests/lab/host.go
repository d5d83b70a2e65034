package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/ext4"
)

// hostPackages are the lab host: the VMM banger drives, the tools banger calls,
// and what tests look at a host with.
func hostPackages() []string {
	return []string{
		"qemu-system-x86", "e2fsprogs", "xfsprogs", "uidmap", "mmdebstrap", "debian-archive-keyring", "util-linux", "mount", "dmsetup",
		"iproute2", "nftables", "iputils-ping", "tcpdump", "netbase", "bridge-utils",
		"procps", "psmisc", "kmod", "strace", "lsof", "socat", "curl", "ca-certificates", "jq", "less",
		"openssh-client", "git", "rsync", "systemd-sysv", "udev", "dbus", "dbus-user-session", "libpam-systemd",
	}
}

// hostImage gives the lab host's file system.
func hostImage(ctx context.Context, c cache) (string, error) {
	key, err := keyOf(hostPackages(), "tests/lab/host.go")
	if err != nil {
		return "", err
	}
	dir, err := c.entry(ctx, "host", key, func(ctx context.Context, dir string) error {
		mirrors, err := debian.FindMirrors("")
		if err != nil {
			return err
		}
		last := ""
		opt := debian.Options{
			Suite: "bookworm", Variant: "minbase", Packages: hostPackages(), Sources: mirrors.Sources("bookworm"),
			AptOptions: debian.HostAptOptions(ctx), TempDir: debian.TempDir(),
			Report: func(p debian.Progress) {
				if p.Stage != last {
					last = p.Stage
					say("  %s", last)
				}
			},
		}
		return debian.Bootstrap(ctx, opt, func(r io.Reader) error {
			return ext4.Write(filepath.Join(dir, "rootfs.ext4"), ext4.UUID("banger lab "+key), func(w *tar.Writer) error {
				return copyTree(tar.NewReader(r), w)
			})
		})
	})
	return filepath.Join(dir, "rootfs.ext4"), err
}

// copyTree passes the archive of Debian's packages on, in the form a file
// system is made of.
func copyTree(r *tar.Reader, w *tar.Writer) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := ext4.MemberPath(h.Name)
		if err != nil {
			return err
		}
		target := ""
		if h.Typeflag == tar.TypeLink {
			if target, err = ext4.MemberPath(h.Linkname); err != nil {
				return err
			}
		}
		m := ext4.Member(h, name, target)
		if name == "" {
			m.Name = "./"
		}
		for k := range m.PAXRecords {
			if strings.Contains(k, "posix_acl") { // of the journal's folder: not in the form the disk has
				delete(m.PAXRecords, k)
			}
		}
		if err := w.WriteHeader(m); err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		if m.Typeflag == tar.TypeReg {
			if _, err := io.Copy(w, r); err != nil {
				return fmt.Errorf("member %s: %w", name, err)
			}
		}
	}
}

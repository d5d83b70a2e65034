package initramfs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestbin"
	"github.com/bangervm/banger/internal/layout"
)

// Write makes the initramfs dst of one start: the guest binary, the boot
// modules of the kernel (layout.KernelDir.BootModules; empty for none), and cfg.
// A file that is there is replaced, whole or not at all. It holds secrets, so
// its mode is 0600.
func Write(l layout.Layout, dst, bootModules string, cfg guestapi.Config) error {
	guest, err := GuestPart(l)
	if err != nil {
		return err
	}
	parts := []string{guest}
	if bootModules != "" {
		parts = append(parts, bootModules)
	}
	f, err := renameio.NewPendingFile(dst, renameio.WithPermissions(0o600), renameio.WithTempDir(filepath.Dir(dst)))
	if err != nil {
		return fmt.Errorf("cannot write initramfs %s: %w", dst, err)
	}
	defer func() { _ = f.Cleanup() }()
	for _, part := range parts {
		if err := appendFile(f.File, part); err != nil {
			return fmt.Errorf("cannot write initramfs %s: %w", dst, err)
		}
	}
	if err := WriteConfig(f, cfg); err != nil {
		return err
	}
	// It is made anew at each start: no need to wait for the disk.
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write initramfs %s: %w", dst, err)
	}
	if err := os.Rename(f.Name(), dst); err != nil {
		return fmt.Errorf("cannot write initramfs %s: %w", dst, err)
	}
	return nil
}

// GuestPart returns the path of the part with the guest binary that is built
// in, making it where it is missing.
func GuestPart(l layout.Layout) (string, error) {
	bin, err := guestbin.Open()
	if err != nil {
		return "", err
	}
	path := l.GuestCPIO(bin.Build)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	b, err := bin.Bytes()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("cannot write %s: %w", path, err)
	}
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600), renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return "", fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer func() { _ = f.Cleanup() }()
	if err := WriteGuest(f, b); err != nil {
		return "", err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return "", fmt.Errorf("cannot write %s: %w", path, err)
	}
	return path, nil
}

// appendFile copies a whole file, in the kernel where it can.
func appendFile(w *os.File, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, f)
	return err
}

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loadModules loads the kernel modules that dir's file of that name lists, in
// its order, but those that wanted does not want. A missing list means that there
// are none.
func loadModules(dir, name string, wanted func(module string) bool) error {
	list, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the list of modules: %w", err)
	}
	for _, name := range strings.Fields(string(list)) {
		if strings.HasPrefix(name, "#") || !wanted(name) {
			continue
		}
		if err := loadModule(filepath.Join(dir, filepath.Base(name))); err != nil {
			return fmt.Errorf("cannot load module %s: %w", name, err)
		}
	}
	return nil
}

// all wants every module.
func all(string) bool { return true }

// loadModule loads one without its signature: the host vouches for the kernel and
// its modules alike, and in emulation checking them is a quarter of the boot. A
// kernel that insists gets the signature back.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	signature, err := dropSignature(f)
	if err != nil {
		return err
	}
	err = finitModule(f)
	if err == nil || len(signature) == 0 || restoreSignature(path, signature) != nil {
		return err
	}
	return finitModule(f)
}

func finitModule(f *os.File) error {
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// What stands at the end of a signed module: the signature, twelve bytes of
// which the last four are its length, the marker (the kernel's
// include/linux/module_signature.h).
const (
	signatureMarker = "~Module signature appended~\n"
	signatureInfo   = 12
	maxSignature    = 64 << 10 // more than any has, in bytes
)

// dropSignature cuts a module's signature off its file and returns what it cut.
// The kernel reads no module that is open for writing, so f is not.
func dropSignature(f *os.File) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := fi.Size()
	var end [signatureInfo + len(signatureMarker)]byte
	if size < int64(len(end)) {
		return nil, nil
	}
	if _, err := f.ReadAt(end[:], size-int64(len(end))); err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint32(end[signatureInfo-4:])) + int64(len(end))
	if string(end[signatureInfo:]) != signatureMarker || length >= size || length > maxSignature {
		return nil, nil
	}
	signature := make([]byte, length)
	if _, err := f.ReadAt(signature, size-length); err != nil {
		return nil, err
	}
	return signature, os.Truncate(f.Name(), size-length)
}

func restoreSignature(path string, signature []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(signature)
	return errors.Join(err, f.Close())
}

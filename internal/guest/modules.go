package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loadModules loads the kernel modules that dir's file "load" lists, in its
// order. A missing list means that there are none. Trusted modules are handed to
// the kernel without their signatures.
func loadModules(dir string, trusted bool) error {
	list, err := os.ReadFile(filepath.Join(dir, "load"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the list of modules: %w", err)
	}
	for _, name := range strings.Fields(string(list)) {
		if strings.HasPrefix(name, "#") {
			continue
		}
		if err := loadModule(filepath.Join(dir, filepath.Base(name)), trusted); err != nil {
			return fmt.Errorf("cannot load module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(path string, trusted bool) error {
	if trusted {
		return loadUnsigned(path)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FinitModule(fd, "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func loadUnsigned(path string) error {
	module, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := unix.InitModule(unsigned(module), ""); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// unsigned is a module without the signature at its end: the signature, a
// struct module_signature (include/linux/module_signature.h) whose last four
// bytes are the signature's length, and a line that says so.
func unsigned(module []byte) []byte {
	const mark, trailer = "~Module signature appended~\n", 12
	rest, signed := bytes.CutSuffix(module, []byte(mark))
	if !signed || len(rest) < trailer {
		return module
	}
	size := binary.BigEndian.Uint32(rest[len(rest)-4:])
	rest = rest[:len(rest)-trailer]
	if uint64(size) > uint64(len(rest)) {
		return module
	}
	return rest[:len(rest)-int(size)]
}

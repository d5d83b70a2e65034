package vm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/store"
)

// disksWhole checks that the disks of a VM that ran before are there and hold
// what they say they do. A VM that never ran has none yet.
func (m *Manager) disksWhole(verb string, rec store.VM, dir layout.VMDir) error {
	root := m.rootOf(rec.RootDisk)
	return both(m.diskWhole(verb, rec, root.file(dir), root.damage), m.workDiskWhole(verb, rec, dir))
}

func (m *Manager) workDiskWhole(verb string, rec store.VM, dir layout.VMDir) error {
	return m.diskWhole(verb, rec, dir.WorkDisk(), func(path string) (string, error) { return ext4Damage(m.d.Host, path) })
}

// ext4Damage says what is wrong with an ext4 in a file. A file smaller than its
// record waits to grow; one smaller than its own file system has lost data.
func ext4Damage(host Host, path string) (string, error) {
	spans, err := host.Ext4Size(path)
	if n := size(path); err == nil && n < spans {
		return "is cut off at " + bytesText(n) + " of " + bytesText(spans), nil
	}
	return "", err
}

func (m *Manager) diskWhole(verb string, rec store.VM, path string, look func(path string) (string, error)) error {
	damage := diskThere(rec, path)
	if damage == "" && rec.StartedAt != nil {
		var err error
		if damage, err = look(path); err != nil {
			return err
		}
	}
	if damage == "" {
		return nil
	}
	return api.Errorf(api.KindBadState, "cannot %s vm %q: its disk %s %s", verb, rec.Name, path, damage).
		WithHint("ls -l %s", filepath.Dir(path))
}

// diskThere says what is wrong with the disk of a VM as far as a look at the
// folder tells; empty when nothing is. A list asks it of every VM.
func diskThere(rec store.VM, path string) string {
	if rec.StartedAt == nil {
		return ""
	}
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is missing"
	case err != nil:
		return "cannot be looked at: " + err.Error()
	case !fi.Mode().IsRegular():
		return "is no regular file"
	case fi.Size() < minDisk:
		return "is cut off at " + bytesText(fi.Size())
	}
	return ""
}

// lostDisk is the error of a VM at rest whose disks are not there; nil when they
// are.
func (m *Manager) lostDisk(rec store.VM, dir layout.VMDir) *api.Error {
	for _, path := range []string{m.rootOf(rec.RootDisk).file(dir), dir.WorkDisk()} {
		if damage := diskThere(rec, path); damage != "" {
			return api.Errorf(api.KindBadState, "the disk %s of vm %q %s", path, rec.Name, damage).
				WithHint("ls -l %s", filepath.Dir(path))
		}
	}
	return nil
}

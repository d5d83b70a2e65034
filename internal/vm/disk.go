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
	var damage error
	for _, path := range []string{m.rootOf(rec.RootDisk).file(dir), dir.WorkDisk()} {
		damage = both(damage, m.diskWhole(verb, rec, path))
	}
	return damage
}

func (m *Manager) diskWhole(verb string, rec store.VM, path string) error {
	damage := diskThere(rec, path)
	if damage == "" && rec.StartedAt != nil {
		// A file smaller than its record waits to grow; one smaller than its own
		// file system has lost data.
		if spans, err := m.d.Host.Ext4Size(path); err != nil {
			return err
		} else if n := size(path); n < spans {
			damage = "is cut off at " + bytesText(n) + " of " + bytesText(spans)
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

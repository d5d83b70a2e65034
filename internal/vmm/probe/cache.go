package probe

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// key is all a verdict depends on.
type key struct {
	HostBoot string    `json:"host_boot"`
	Device   string    `json:"device"`
	File     string    `json:"file"` // which file the device is now: it may be another's, or made anew
	Driver   string    `json:"driver"`
	Program  string    `json:"program"`
	Size     int64     `json:"size"`
	Changed  time.Time `json:"changed"`
	UID      int       `json:"uid"`
}

// verdict is what the cache file holds.
type verdict struct {
	Key         key             `json:"key"`
	Accelerator vmm.Accelerator `json:"accelerator"`
	Reason      string          `json:"reason"`
	At          time.Time       `json:"at"`
	passing     bool            // not to be kept
}

func identify(o Options, v vmm.Version) (key, error) {
	k := key{HostBoot: o.HostBoot, Device: o.Device, Driver: o.Driver.Name(), Program: v.Program, UID: os.Geteuid()}
	if fi, err := os.Stat(o.Device); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			k.File = fmt.Sprintf("%x:%x:%x", st.Dev, st.Ino, st.Rdev)
		}
	}
	if v.Program != "" {
		fi, err := os.Stat(v.Program)
		if err != nil {
			return k, api.Errorf(api.KindUnavailable, "cannot look at the VMM: %w", err)
		}
		k.Size, k.Changed = fi.Size(), fi.ModTime().UTC()
	}
	return k, nil
}

// recall gives the verdict kept for the key. A file that cannot be read is as
// good as none: it is written anew.
func recall(path string, k key) (verdict, bool) {
	var v verdict
	if path == "" || k.HostBoot == "" {
		return v, false
	}
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &v) != nil {
		return v, false
	}
	return v, v.Key == k && (v.Accelerator == vmm.KVM || v.Accelerator == vmm.TCG)
}

func keep(path string, v verdict) error {
	if path == "" || v.Key.HostBoot == "" {
		return nil
	}
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(path, append(b, '\n'), 0o600)
}

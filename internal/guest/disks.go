package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bangervm/banger/guestapi"
)

// diskPatience is how long a disk may take to appear. On virtio-mmio they are
// there as soon as the driver is loaded.
const diskPatience = 5 * time.Second

// findDisks gives the device of each wanted role: by its serial number, else
// by its place among the virtio disks.
func findDisks(sysBlock string, want []guestapi.Disk) (map[string]string, error) {
	deadline := time.Now().Add(diskPatience)
	for {
		found := matchDisks(serials(sysBlock), want)
		var missing []string
		for _, d := range want {
			if found[d.Role] == "" {
				missing = append(missing, d.Role)
			}
		}
		if len(missing) == 0 {
			return found, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("cannot find the disks %s", strings.Join(missing, ", "))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// blockDevice is a virtio disk.
type blockDevice struct{ name, serial string }

// serials lists the virtio disks in the kernel's order: vda … vdz, vdaa ….
func serials(sysBlock string) []blockDevice {
	entries, _ := os.ReadDir(sysBlock)
	var out []blockDevice
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "vd") {
			continue
		}
		b, _ := os.ReadFile(filepath.Join(sysBlock, e.Name(), "serial"))
		out = append(out, blockDevice{e.Name(), strings.TrimSpace(string(b))})
	}
	slices.SortFunc(out, func(a, b blockDevice) int {
		if d := len(a.name) - len(b.name); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return out
}

func matchDisks(have []blockDevice, want []guestapi.Disk) map[string]string {
	found := map[string]string{}
	for _, d := range want {
		for _, b := range have {
			if d.Serial != "" && b.serial == d.Serial {
				found[d.Role] = "/dev/" + b.name
				break
			}
		}
		if found[d.Role] != "" || d.Index < 0 || d.Index >= len(have) {
			continue
		}
		if b := have[d.Index]; b.serial == "" || d.Serial == "" {
			found[d.Role] = "/dev/" + b.name
		}
	}
	return found
}

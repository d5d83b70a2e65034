package initramfs

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"slices"

	"github.com/bangervm/banger/guestapi"
)

// WriteGuest writes the part that is the same for every guest: the guest binary
// as /init, and what it needs before it has mounted anything.
func WriteGuest(w io.Writer, binary []byte) error {
	c := NewCPIO(w)
	for _, dir := range []string{"dev", "proc", "sys", "run", "banger"} {
		c.Dir(dir, 0o755)
	}
	c.Char("dev/console", 0o600, 5, 1)
	c.Char("dev/null", 0o666, 1, 3)
	c.Char("dev/kmsg", 0o600, 1, 11)
	c.File("init", 0o755, int64(len(binary)), bytes.NewReader(binary))
	return c.Close()
}

// WriteConfig writes the part of one start: its configuration.
func WriteConfig(w io.Writer, cfg guestapi.Config) error {
	b, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	c := NewCPIO(w)
	c.Dir("banger", 0o700)
	c.File(guestapi.ConfigPath, 0o600, int64(len(b)), bytes.NewReader(b))
	return c.Close()
}

// Module is one kernel module of the boot part.
type Module struct {
	Name string // file name, e.g. virtio_blk.ko
	List string // the list it is on, see guestapi.ModulesPath
	Size int64
	Data io.Reader
}

// WriteModules writes the part of one kernel: its boot modules, each list in the
// order to load it, and the lists that say so.
func WriteModules(w io.Writer, modules []Module) error {
	c := NewCPIO(w)
	lists := map[string][]byte{guestapi.LoadAlways: nil}
	for _, m := range modules {
		c.File(guestapi.ModulesPath+"/"+m.Name, 0o644, m.Size, m.Data)
		lists[m.List] = append(lists[m.List], m.Name+"\n"...)
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		c.File(guestapi.ModulesPath+"/"+name, 0o644, int64(len(lists[name])), bytes.NewReader(lists[name]))
	}
	return c.Close()
}

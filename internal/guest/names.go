package guest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// ours marks the lines and files that each boot writes anew; what a user wrote
// stays.
const ours = "# banger"

// writeNames sets the host name and writes the names, where the system disk did
// not get them when it was made.
func (i *initProcess) writeNames() error {
	name := i.cfg.Hostname
	if name == "" {
		name = defaultHostname
	}
	var errs []error
	if err := unix.Sethostname([]byte(name)); err != nil {
		errs = append(errs, fmt.Errorf("cannot set the host name: %w", err))
	}
	if !i.named {
		if err := os.MkdirAll("/etc", 0o755); err != nil {
			return fmt.Errorf("cannot write names: %w", err)
		}
		errs = append(errs, writeNames("/etc", "/etc", i.cfg, i.fresh))
	}
	return errors.Join(errs...)
}

// nameLayer writes the names into a new upper layer, which costs a fraction of
// writing them through the overlay. It says whether it could; else they are
// written as at any later start.
func nameLayer(lower, upper string, cfg guestapi.Config) bool {
	var st unix.Stat_t
	if unix.Lstat(lower, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false
	}
	if makeLike(upper, &st) == nil && writeNames(lower, upper, cfg, true) == nil {
		return true
	}
	_ = os.RemoveAll(upper)
	return false
}

const defaultHostname = "banger"

// writeNames writes hostname, hosts and resolv.conf into the folder to, each
// only where it differs from what the folder from has. fresh says that what is
// there comes from the image, not from a user of this VM.
func writeNames(from, to string, cfg guestapi.Config, fresh bool) error {
	if cfg.Hostname == "" {
		cfg.Hostname = defaultHostname
	}
	errs := []error{
		update(from, to, "hostname", func([]byte) []byte { return []byte(cfg.Hostname + "\n") }),
		update(from, to, "hosts", func(old []byte) []byte { return hosts(old, cfg.Hostname) }),
	}
	if cfg.VMID != "" {
		errs = append(errs, update(from, to, "machine-id", func(old []byte) []byte { return machineID(old, cfg.VMID) }))
	}
	if len(cfg.Network.DNS) > 0 {
		errs = append(errs, update(from, to, "resolv.conf", func(old []byte) []byte {
			if fresh {
				old = nil
			}
			return resolvConf(old, cfg.Network.DNS)
		}))
	}
	return errors.Join(errs...)
}

// hosts keeps what is there but for our own lines, and adds them.
func hosts(old []byte, name string) []byte {
	var b bytes.Buffer
	local := false
	for line := range bytes.Lines(old) {
		line = bytes.TrimRight(line, "\r\n")
		if bytes.HasSuffix(line, []byte(ours)) {
			continue
		}
		if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == "127.0.0.1" {
			local = true
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if !local {
		fmt.Fprintf(&b, "127.0.0.1 localhost %s\n::1 localhost ip6-localhost ip6-loopback %s\n", ours, ours)
	}
	if name != "" {
		fmt.Fprintf(&b, "127.0.1.1 %s %s\n", name, ours)
	}
	return b.Bytes()
}

// machineID keeps the one there is; an image that leaves it to its machines gets
// one that is this VM's at every start.
func machineID(old []byte, vm string) []byte {
	if id := bytes.TrimSpace(old); len(id) == 32 && len(bytes.Trim(id, "0123456789abcdef")) == 0 {
		return old
	}
	sum := sha256.Sum256([]byte("banger machine-id " + vm))
	return []byte(hex.EncodeToString(sum[:16]) + "\n")
}

// resolvConf replaces a file that is empty, ours or only comments; a file with
// settings of the user's own stays.
func resolvConf(old []byte, servers []string) []byte {
	if !bytes.HasPrefix(old, []byte(ours)) {
		for line := range bytes.Lines(old) {
			if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == "nameserver" {
				return old
			}
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s: written at each start; remove this line to keep your own\n", ours)
	for _, s := range servers {
		if a, err := netip.ParseAddr(strings.TrimSpace(s)); err == nil {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	return b.Bytes()
}

// update rewrites a small file when change changes it. A link that leads
// nowhere, or anything that is no regular file, is replaced.
func update(from, to, name string, change func(old []byte) []byte) error {
	path := filepath.Join(to, name)
	source := filepath.Join(from, name)
	old, err := readRegular(source, 1<<20)
	if fi, lerr := os.Lstat(source); from != to && lerr == nil && fi.Mode()&os.ModeSymlink != 0 {
		err = errors.New("a link of the image leads elsewhere here") // not yet in its root
	}
	if err != nil {
		old = nil
	}
	next := change(old)
	if err == nil && bytes.Equal(old, next) {
		return nil
	}
	// Renamed into place: a reader never sees half of it, and a link is
	// replaced, not followed. A new layer has no readers yet.
	tmp := path
	if from == to {
		tmp += ".banger"
	}
	if err := os.WriteFile(tmp, next, 0o644); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if tmp == path {
		return nil
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

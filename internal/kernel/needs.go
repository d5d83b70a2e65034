package kernel

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// need is something that a guest needs of its kernel.
type need struct {
	what   string // it is for, for people
	module string // its name where it can be a module; empty: it is built in or not at all
	option string // of the configuration
	// mark is what a kernel holds that has it built in, as found in those of
	// 5.10 to 6.12; empty where nothing tells it.
	mark string
	link link // whose need it is
}

// link is a guest link, and with it what a kernel is started by.
type link int

const (
	anyLink link = iota
	serial       // QEMU, which starts a vmlinux by its PVH entry
	vsock        // Firecracker
	comfort      // nobody's: without it something is missing that can be missed
)

// needs is a table, in the order people are told of it.
func needs() []need {
	return []need{
		{"the disks", "virtio_blk", "VIRTIO_BLK", "virtio_blk\x00", anyLink},
		{"all virtio devices", "virtio_mmio", "VIRTIO_MMIO", "virtio-mmio\x00", anyLink},
		{"the network", "virtio_net", "VIRTIO_NET", "virtio_net\x00", anyLink},
		{"the disks' file system", "ext4", "EXT4_FS", "EXT4-fs", anyLink},
		{"the root of images", "overlay", "OVERLAY_FS", "overlayfs: ", anyLink},
		{"the initramfs", "", "BLK_DEV_INITRD", "rootfs image as initramfs", anyLink},
		{"/dev", "", "DEVTMPFS", "devtmpfs: initialized", anyLink},
		{"/proc", "", "PROC_FS", "", anyLink},
		{"/sys", "", "SYSFS", "", anyLink},
		{"/run and /tmp", "", "TMPFS", "", anyLink},
		{"Unix sockets", "", "UNIX", "", anyLink},
		{"the Internet protocols", "", "INET", "", anyLink},
		{"programs", "", "BINFMT_ELF", "", anyLink},
		{"the guest link under QEMU", "virtio_console", "VIRTIO_CONSOLE", "virtio_console\x00", serial},
		{"finding devices under QEMU", "", "ACPI", "ACPI: Interpreter enabled", serial},
		{"the start under QEMU", "", optionPVH, "", serial},
		{"the guest link under Firecracker", "vmw_vsock_virtio_transport", "VIRTIO_VSOCKETS", "vmw_vsock_virtio_transport\x00", vsock},
		{"the console log", "", "SERIAL_8250_CONSOLE", "8250/16550 driver", comfort},
		{"terminals", "", "UNIX98_PTYS", "", comfort},
	}
}

// optionPVH is told by the file itself, whatever the configuration says.
const optionPVH = "PVH"

func (n need) String() string {
	name := "CONFIG_" + n.option
	if n.module != "" {
		name = n.module + " (" + name + ")"
	}
	return name + " for " + n.what
}

// answer is what is known of a need.
type answer int

const (
	unknown answer = iota
	there
	lacking
	unseen // no trace of it in the image: most likely it is not there
)

// evidence is what is known of a kernel, from wherever.
type evidence struct {
	modules map[string]bool // that come with it
	builtin map[string]bool // of its modules.builtin; nil: there was none
	config  config          // nil: there was none
	pvh     bool
	marks   map[string]bool // nil: the image was not looked at
}

func (e evidence) of(n need) answer {
	name := moduleName(n.module)
	switch {
	case n.option == optionPVH && e.pvh, name != "" && (e.modules[name] || e.builtin[name]):
		return there
	case n.option == optionPVH:
		return lacking
	case e.config != nil && e.config[n.option] == "y":
		return there
	case e.config != nil, name != "" && e.builtin != nil:
		return lacking // or a module that did not come with it
	case n.mark == "" || e.marks == nil:
		return unknown
	case e.marks[n.mark]:
		return there
	}
	return unseen
}

// verdict is what comes of all needs together.
type verdict struct {
	lacking  []need // without which no guest boots
	unseen   []need // of lacking, those that are only not seen
	builtin  []string
	warnings []string
	// transports are the guest links of the VMMs that can start it.
	transports []guestapi.Transport
}

// judge compares a kernel with the needs. A kernel must serve one of the links.
func (e evidence) judge() verdict {
	var v verdict
	without := map[link][]need{}
	var blind []string
	for _, n := range needs() {
		a := e.of(n)
		if a == unseen && n.link == serial && n.module == "" {
			// Too little to keep QEMU from trying.
			v.warnings = append(v.warnings, "there is no trace in it of "+n.String())
			a = there
		}
		switch a {
		case lacking, unseen:
			without[n.link] = append(without[n.link], n)
			if a == unseen {
				v.unseen = append(v.unseen, n)
			}
			continue
		case unknown:
			blind = append(blind, "CONFIG_"+n.option)
		}
		if name := moduleName(n.module); name != "" && !e.modules[name] {
			v.builtin = append(v.builtin, name)
		}
	}
	v.lacking = without[anyLink]
	if len(without[serial]) == 0 {
		v.transports = append(v.transports, guestapi.TransportSerial)
	}
	if len(without[vsock]) == 0 {
		v.transports = append(v.transports, guestapi.TransportVsock)
	}
	switch {
	case len(without[serial]) > 0 && len(without[vsock]) > 0:
		v.lacking = append(v.lacking, without[serial]...)
	case len(without[serial]) > 0:
		v.warnings = append(v.warnings, "only Firecracker can start it: it lacks "+list(without[serial]))
	case len(without[vsock]) > 0:
		v.warnings = append(v.warnings, "only QEMU can start it: it lacks "+list(without[vsock]))
	}
	if len(without[comfort]) > 0 {
		v.warnings = append(v.warnings, "it lacks "+list(without[comfort]))
	}
	if len(blind) > 0 {
		v.warnings = append(v.warnings, "it carries no configuration, so nothing is known of "+strings.Join(blind, ", "))
	}
	return v
}

func list(needs []need) string {
	words := make([]string, len(needs))
	for i, n := range needs {
		words[i] = n.String()
	}
	return strings.Join(words, ", ")
}

// check says whether a guest can boot with the kernel, and notes which of what
// it needs is built in. With unchecked a kernel that lacks something is taken,
// with a warning.
func (u *unpacker) check(unchecked bool) error {
	e := evidence{modules: map[string]bool{}, builtin: u.modules.builtin, config: u.config}
	for _, m := range u.modules.list {
		e.modules[m.info.name] = true
	}
	f, err := os.Open(u.dir.VMLinux())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if e.pvh, err = canPVH(f); err != nil {
		return fmt.Errorf("cannot read its notes: %w", err)
	}
	if e.config == nil {
		if e.marks, e.config, err = look(f); err != nil {
			return err
		}
		if e.config != nil {
			u.source["config"] = "in the kernel"
		}
	}
	v := e.judge()
	u.warnings, u.transports = v.warnings, v.transports
	u.assume(v.builtin)
	if len(v.lacking) == 0 {
		return nil
	}
	if !unchecked {
		says := "it lacks "
		if slices.Equal(names(v.lacking), names(intersect(v.lacking, v.unseen))) {
			says = "it carries no configuration, and in its image there is no trace of "
		}
		return api.Errorf(api.KindUnsupported, "no guest can boot with kernel %s: %s%s", u.release, says, list(v.lacking))
	}
	u.warnings = append(u.warnings, "taken unchecked, though it seems to lack "+list(v.lacking))
	u.assume(names(v.lacking))
	if len(u.transports) == 0 {
		u.transports = []guestapi.Transport{guestapi.TransportSerial}
	}
	return nil
}

func names(needs []need) []string {
	var out []string
	for _, n := range needs {
		out = append(out, moduleName(n.module))
	}
	return out
}

func intersect(a, b []need) []need {
	return slices.DeleteFunc(slices.Clone(a), func(n need) bool { return !slices.Contains(b, n) })
}

// assume takes modules for built in.
func (u *unpacker) assume(modules []string) {
	for _, name := range modules {
		if name == "" {
			continue
		}
		if u.modules.builtin == nil {
			u.modules.builtin = map[string]bool{}
		}
		u.modules.builtin[name] = true
	}
}

// look searches a vmlinux for what tells of its needs.
func look(f *os.File) (map[string]bool, config, error) {
	var marks []string
	for _, n := range needs() {
		if n.mark != "" {
			marks = append(marks, n.mark)
		}
	}
	t, err := scan(f, marks)
	if err != nil || t.config == 0 {
		return t.marks, nil, err
	}
	c, err := parseEmbedded(io.NewSectionReader(f, t.config, maxConfig))
	if err != nil {
		// What looked like a configuration was none; the marks tell what they can.
		return t.marks, nil, nil
	}
	return t.marks, c, nil
}

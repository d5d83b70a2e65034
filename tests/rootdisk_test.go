package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/internal/host/hosttest"
)

// onXFS is a host whose state lies on an XFS of its own, which shares blocks
// between files, with image and kernel in it.
func onXFS(t *testing.T, size int64) *host {
	t.Helper()
	return onDisk(t, func(state string) { hosttest.XFS(t, state, size) })
}

// onDisk is a host whose state lies on a disk of its own, that mount mounts, with
// image and kernel in it. Its one machine is called web.
func onDisk(t *testing.T, mount func(state string)) *host {
	t.Helper()
	h := newEmptyHost(t)
	state := filepath.Join(h.root, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	mount(state)
	t.Cleanup(func() { // before the disk's own end
		h.banger("vm", "delete", "--force", "web")
		h.banger("daemon", "stop")
	})
	if err := os.CopyFS(state, os.DirFS(filepath.Join(baseRoot, "state"))); err != nil {
		t.Fatal(err)
	}
	return h
}

// rootFacts is what the guest says of its root: file system, device, MiB.
const rootFacts = "findmnt -rno FSTYPE,SOURCE / ; df -BM --output=size / | tail -1 | tr -dc 0-9"

func TestARootDiskByReflink(t *testing.T) {
	t.Parallel()
	h := onXFS(t, 4<<30)
	h.ok("vm", "list") // sets the rights of what was copied
	before := used(t, h.root+"/state")
	h.create("web", "--root-disk", "reflink", "--system-overlay-size", "2G", "--network", "none")
	vm := h.show("web")
	if vm.RootDisk != "reflink" || vm.RootDiskReason != "asked for" || len(vm.Warnings) != 0 {
		t.Errorf("%+v", vm)
	}
	if r := h.ok("vm", "show", "web"); !strings.Contains(r.stdout, "2G with the image in it (reflink, asked for)") {
		t.Error(r)
	}
	facts := strings.Fields(h.sh("web", rootFacts))
	if len(facts) != 3 || facts[0] != "ext4" || facts[1] != "/dev/vda" || len(facts[2]) != 4 {
		t.Fatalf("the root is %q", facts)
	}
	// Names were written as in any machine, and what is written is kept.
	if got := h.sh("web", "hostname; cat /etc/hostname; stat -c %a /tmp; echo kept > /etc/mark; rm /etc/motd; sync"); got != "web\nweb\n1777" {
		t.Errorf("%q", got)
	}
	if took := used(t, h.root+"/state") - before; took > 150<<20 {
		t.Errorf("%d bytes for a machine: the image was copied", took)
	}
	// A kill, and what was flushed is there; growth waits for the next start.
	h.ok("vm", "set", "web", "--system-overlay-size", "3G")
	if vm := h.show("web"); !slices.Contains(vm.Pending, "system_overlay_bytes") {
		t.Errorf("pending: %q", vm.Pending)
	}
	h.ok("vm", "kill", "web")
	h.ok("vm", "start", "web")
	after := strings.Fields(h.sh("web", rootFacts+"; echo; cat /etc/mark; test -e /etc/motd || echo gone"))
	if len(after) != 5 || after[3] != "kept" || after[4] != "gone" || after[2] <= facts[2] {
		t.Errorf("after the restart: %q, before %q", after, facts)
	}
	h.fails(8, []string{"another image", "would be lost", "hint: "}, "vm", "set", "web", "--image", "debian-bookworm")
	// An orderly stop leaves a clean disk.
	h.ok("vm", "stop", "web")
	disk := filepath.Join(h.root, "state", "vms", vm.ID, "root.ext4")
	if out, err := exec.Command("e2fsck", "-fn", disk).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	h.ok("vm", "delete", "--yes", "web")
	h.eventually("the room is free again", patience, func() bool { return used(t, h.root+"/state")-before < 8<<20 })
}

// used is how many bytes of a file system are taken.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	unix.Sync()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// On a file system that shares no blocks the word is no, before anything is made.
func TestARootDiskThatTheHostCannotHave(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	why := []string{"cannot give a vm the root disk reflink", "does not share blocks", "hint: banger vm create --root-disk overlay"}
	if exec.Command("cp", "--reflink=always", bangerBin, filepath.Join(h.root, "clone")).Run() == nil {
		t.Skip("this host's file system shares blocks")
	}
	h.fails(8, why, "vm", "create", "--name", "web", "--root-disk", "reflink")
	h.empty()
	h.fails(2, []string{"auto, overlay"}, "vm", "create", "--root-disk", "copy")
}

// onDeviceMapper is a host whose root disks may be device-mapper's, and a look at
// what it has of devices: names of mappings, files of loops.
func onDeviceMapper(t *testing.T) *host {
	t.Helper()
	if _, err := os.Stat("/dev/mapper/control"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and device-mapper: the rows root-disks of make lab")
	}
	return newHost(t)
}

// blockDevices are this host's mappings of ours, and its loops over its files.
func (h *host) blockDevices() []string {
	h.t.Helper()
	var found []string
	names, _ := filepath.Glob("/sys/block/dm-*/dm/name")
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range append(names, loops...) {
		data, err := os.ReadFile(path)
		if text := strings.TrimSpace(string(data)); err == nil && (strings.HasPrefix(text, "banger-") || strings.HasPrefix(text, h.root)) {
			found = append(found, text)
		}
	}
	return found
}

func (h *host) noBlockDevices(when string) {
	h.t.Helper()
	h.eventually(when+": no mapping and no loop is left", 20*time.Second, func() bool { return len(h.blockDevices()) == 0 })
}

func TestARootDiskByDeviceMapper(t *testing.T) {
	h := onDeviceMapper(t)
	vm := h.create("web", "--root-disk", "dm-snapshot", "--system-overlay-size", "1G", "--network", "none")
	if vm.RootDisk != "dm-snapshot" || vm.RootDiskReason != "asked for" || len(vm.Warnings) != 0 {
		t.Errorf("%+v", vm)
	}
	facts := strings.Fields(h.sh("web", rootFacts))
	if len(facts) != 3 || facts[0] != "ext4" || facts[1] != "/dev/vda" {
		t.Fatalf("the root is %q", facts)
	}
	h.sh("web", "echo kept > /etc/mark; rm /etc/motd; sync")
	if found := h.blockDevices(); len(found) != 4 {
		t.Errorf("two mappings over two loops, not %q", found)
	}
	// The daemon dies: the machine and its devices go on, and are adopted.
	h.killDaemon()
	if got := h.sh("web", "cat /etc/mark"); got != "kept" || len(h.blockDevices()) != 4 {
		t.Errorf("%q, %q", got, h.blockDevices())
	}
	h.ok("vm", "stop", "web")
	h.noBlockDevices("stopped by the next daemon")
	h.ok("vm", "set", "web", "--system-overlay-size", "1500M")
	h.ok("vm", "start", "web")
	after := strings.Fields(h.sh("web", rootFacts+"; echo; cat /etc/mark; test -e /etc/motd || echo gone"))
	if len(after) != 5 || after[3] != "kept" || after[4] != "gone" || after[2] <= facts[2] && len(after[2]) <= len(facts[2]) {
		t.Errorf("grown: %q, before %q", after, facts)
	}
	h.fails(8, []string{"another image", "would be lost"}, "vm", "set", "web", "--image", "debian-bookworm")
	// Everybody dies, and nobody is there to see to it: the kernel is.
	h.killDaemon()
	for pid := range h.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	h.noBlockDevices("all killed")
	h.ok("vm", "start", "web")
	if got := h.sh("web", "cat /etc/mark"); got != "kept" {
		t.Errorf("%q", got)
	}
	h.ok("vm", "delete", "--force", "--yes", "web")
	h.noBlockDevices("deleted")
	h.empty()
}

// What stands in the way of a snapshot is told, nothing of anybody else's is
// touched, and once it is out of the way the machine starts.
func TestWhatStandsInTheWayOfASnapshot(t *testing.T) {
	h := onDeviceMapper(t)
	dmsetup := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("dmsetup", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("dmsetup %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	h.ok("vm", "create", "--name", "web", "--no-start", "--root-disk", "dm-snapshot", "--system-overlay-size", "1G", "--network", "none")
	name := "banger-" + h.show("web").ID
	dmsetup("create", name, "--table", "0 2048 zero")
	before := dmsetup("info", "-c", "--noheadings", name)
	h.fails(4, []string{"there is a device of the name " + name, "not ours", "hint: sudo dmsetup info " + name}, "vm", "start", "web")
	if after := dmsetup("info", "-c", "--noheadings", name); after != before {
		t.Errorf("it was touched: %s, then %s", before, after)
	}
	dmsetup("remove", name)
	h.noBlockDevices("a name that was taken")

	// A disk with no room for all the changes there can be.
	h.fails(9, []string{"takes all of its room at once", "are free"}, "vm", "create", "--name", "big", "--root-disk", "dm-snapshot", "--system-overlay-size", "1T")
	h.fails(2, []string{"the image takes", "hint: banger vm create --system-overlay-size"}, "vm", "create", "--name", "small", "--root-disk", "dm-snapshot", "--system-overlay-size", "64M")
	h.noBlockDevices("no room")

	h.ok("vm", "start", "web")
	if got := strings.Fields(h.sh("web", rootFacts)); len(got) != 3 || got[0] != "ext4" {
		t.Errorf("%q", got)
	}
	h.ok("vm", "stop", "web")
	h.noBlockDevices("stopped")
}

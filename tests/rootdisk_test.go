package tests

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onXFS is a host whose state lies on an XFS of its own, which shares blocks
// between files, with image and kernel in it.
func onXFS(t *testing.T, size int64) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	h := newEmptyHost(t)
	state, disk := filepath.Join(h.root, "state"), filepath.Join(h.root, "disk")
	if err := errors.Join(os.Mkdir(state, 0o700), os.WriteFile(disk, nil, 0o600), os.Truncate(disk, size)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", disk}, {"mount", "-o", "loop", disk, state}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	t.Cleanup(func() { // before the host's own end, which needs a root it can remove
		h.banger("vm", "delete", "--force", "web")
		h.banger("daemon", "stop")
		if err := unix.Unmount(state, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
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

package tests

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// firecrackerHost is a host whose machines run under Firecracker. That takes a
// working KVM: a row of tests/lab/rows.json says when there is one.
func firecrackerHost(t *testing.T) *host {
	t.Helper()
	if os.Getenv("BANGER_TEST_DRIVER") != "firecracker" {
		t.Skip("BANGER_TEST_DRIVER is not firecracker: make lab runs this")
	}
	return newHost(t)
}

// firecracker is the process of the machine's, 0 when there is none.
func firecracker(id string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && bytes.Contains(b, []byte("firecracker\x00--id\x00"+id+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// controlGroup is the folder of a process's group, if it is one of ours.
func controlGroup(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(b)), "0::")
	if !strings.Contains(path, "/banger/") {
		return ""
	}
	return filepath.Join("/sys/fs/cgroup", path)
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A machine under Firecracker leaves nothing on the host: not when it is stopped,
// not when its keeper is killed, nor when the daemon is killed with it. As root
// it has a user and a control group of its own meanwhile.
func TestFirecrackerLeavesNothing(t *testing.T) {
	t.Parallel()
	h := firecrackerHost(t)
	before := mounts(t)
	vm := h.create("f", "--driver", "firecracker")
	if vm.Driver != "firecracker" {
		t.Fatalf("it runs under %q: %s", vm.Driver, vm.AcceleratorReason)
	}
	own := filepath.Join(h.root, "run", "vm", vm.ID, "vmm")
	var group string
	up := func() int {
		t.Helper()
		pid := firecracker(vm.ID)
		if pid == 0 {
			t.Fatal("no Firecracker")
		}
		fi, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
		if err != nil {
			t.Fatal(err)
		}
		uid := int(fi.Sys().(*syscall.Stat_t).Uid)
		group = controlGroup(t, pid)
		if os.Geteuid() == 0 && (uid < 0x70000000 || group == "") {
			t.Errorf("it runs as user %d in group %q", uid, group)
		}
		if os.Geteuid() != 0 && uid != os.Geteuid() {
			t.Errorf("it runs as user %d", uid)
		}
		return pid
	}
	gone := func(pid int) {
		t.Helper()
		h.eventually("Firecracker is gone", 10*time.Second, func() bool { return firecracker(vm.ID) == 0 })
		h.eventually("its folder and its group are gone", 10*time.Second, func() bool {
			_, folder := os.Stat(own)
			_, cgroup := os.Stat(group)
			return os.IsNotExist(folder) && (group == "" || os.IsNotExist(cgroup))
		})
		if after := mounts(t); after != before {
			t.Errorf("mounts before:\n%safter:\n%s", before, after)
		}
	}
	pid := up()
	h.sh("f", "echo kept > /root/a")
	h.ok("vm", "stop", "f")
	gone(pid)

	h.ok("vm", "start", "f")
	pid = up()
	if got := h.sh("f", "cat /root/a"); got != "kept" {
		t.Errorf("lost: %q", got)
	}
	if err := syscall.Kill(h.one("keeper", vm.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually("it shows as stopped", 10*time.Second, func() bool { return h.show("f").Status == api.StatusStopped })
	gone(pid)

	h.ok("vm", "start", "f")
	pid = up()
	h.killDaemon()
	if err := syscall.Kill(h.one("keeper", vm.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.ok("vm", "list") // a new daemon
	gone(pid)
	h.ok("vm", "delete", "--yes", "f")
	h.empty()
}

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

// groupsAreTold checks the limits of a machine's control group; and where it has
// none, as an ordinary user to whom nothing was delegated, that doctor and the
// keeper's log say so. BANGER_TEST_DELEGATED is set where something was.
func (h *host) groupsAreTold(id, group string) {
	h.t.Helper()
	var found api.Check
	var checks []api.Check
	h.json(&checks, "doctor", "--json")
	for _, c := range checks {
		if c.Name == "control-groups" {
			found = c
		}
	}
	log, err := os.ReadFile(filepath.Join(h.root, "state", "vms", id, "keeper.log"))
	if err != nil {
		h.t.Fatal(err)
	}
	warned := strings.Contains(string(log), "no limits of a control group")
	delegated := os.Geteuid() == 0 || os.Getenv("BANGER_TEST_DELEGATED") != ""
	if !delegated {
		if group != "" || !warned || found.Status != api.CheckWarn || !strings.Contains(found.Hint, "systemd-run --user --scope -p Delegate=yes") {
			h.t.Errorf("in group %q; warned: %t; doctor: %+v", group, warned, found)
		}
		return
	}
	if group == "" || warned || found.Status != api.CheckPass {
		h.t.Errorf("in group %q; warned: %t; doctor: %+v", group, warned, found)
		return
	}
	for _, file := range []string{"memory.max", "pids.max", "cpu.max"} {
		if b, err := os.ReadFile(filepath.Join(group, file)); err != nil || strings.HasPrefix(string(b), "max") {
			h.t.Errorf("%s is %q, %v", file, b, err)
		}
	}
	if os.Geteuid() != 0 && !strings.Contains(group, "/user@"+strconv.Itoa(os.Geteuid())+".service/") {
		h.t.Errorf("the group %s is not of the user's own", group)
	}
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
		h.groupsAreTold(vm.ID, group)
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

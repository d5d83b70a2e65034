package tests

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

func (h *host) killDaemon() {
	h.t.Helper()
	if err := syscall.Kill(h.daemonPID(), syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
}

// one is the pid of the only process whose command line holds the word.
func (h *host) one(word ...string) int {
	h.t.Helper()
	found := h.processes(word...)
	if len(found) != 1 {
		h.t.Fatalf("expected one process with %q: %v", word, found)
	}
	for pid := range found {
		return pid
	}
	return 0
}

func TestMachinesOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("beta")
	h.sh("beta", "echo 1 > /dev/shm/boot")
	h.killDaemon()
	if r := h.ok("vm", "exec", "beta", "cat", "/dev/shm/boot"); r.stdout != "1\n" {
		t.Errorf("not the same boot: %v", r)
	}
	if r := h.ok("ps"); !strings.Contains(r.stdout, "beta") {
		t.Errorf("%v", r)
	}
	h.ok("vm", "logs", "--console", "beta")
	h.killDaemon()
	h.ok("vm", "stop", "beta")
	if vm := h.show("beta"); vm.Status != api.StatusStopped || vm.Error != nil {
		t.Errorf("%+v", vm)
	}
}

// The daemon is killed at many moments of a creation; whatever the moment, the
// next daemon leaves a machine that works or none, and a name that is free or
// belongs to it.
func TestDaemonKilledWhileCreating(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "list")
	for _, delay := range []time.Duration{5, 20, 60, 150, 400, 1000} {
		var wg sync.WaitGroup
		wg.Go(func() { h.banger("vm", "create", "--name", "half", "--vcpu", "1", "--memory", "512M") })
		time.Sleep(delay * time.Millisecond) // the moment is what is varied
		if len(h.processes("daemon run")) == 1 {
			_ = syscall.Kill(h.one("daemon run"), syscall.SIGKILL)
		}
		wg.Wait()
		if r := h.banger("vm", "show", "half"); r.code == 0 {
			h.ok("vm", "start", "half")
			h.sh("half", "true")
			h.ok("vm", "delete", "--force", "half")
		}
		h.empty()
		var ops []api.Operation
		h.json(&ops, "operation", "list", "--json")
		for _, op := range ops {
			if op.Status == api.OperationRunning {
				t.Errorf("killed after %v: an operation never ended: %+v", delay, op)
			}
		}
	}
}

func TestDaemonKilledWhileStoppingAndDeleting(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, verb := range [][]string{{"vm", "stop", "v"}, {"vm", "delete", "--force", "v"}} {
		h.create("v")
		h.sh("v", "echo kept > /root/a")
		var wg sync.WaitGroup
		wg.Go(func() { h.banger(verb...) })
		time.Sleep(30 * time.Millisecond) // the moment is what is varied
		_ = syscall.Kill(h.one("daemon run"), syscall.SIGKILL)
		wg.Wait()
		h.eventually("the next daemon ends what was begun", patience, func() bool {
			r := h.banger("vm", "show", "v", "--format", "{{.status}}")
			return r.code == 3 || strings.TrimSpace(r.stdout) == "stopped" || strings.TrimSpace(r.stdout) == "running"
		})
		if h.banger("vm", "show", "v").code == 0 {
			h.ok("vm", "stop", "v")
			h.ok("vm", "start", "v")
			if got := h.sh("v", "cat /root/a"); got != "kept" {
				t.Errorf("lost: %q", got)
			}
			h.ok("vm", "delete", "--force", "v")
		}
		h.empty()
	}
}

func TestRunWithRmEndsAlsoWhenTheDaemonWasKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var wg sync.WaitGroup
	wg.Go(func() { h.banger("vm", "run", "--rm", "--name", "eph", "--", "sleep", "600") })
	h.eventually("the command runs", patience, func() bool {
		return strings.Contains(h.banger("vm", "exec", "eph", "--", "ps", "ax").stdout, "sleep 600")
	})
	h.killDaemon()
	wg.Wait()
	h.eventually("the machine is deleted", patience, func() bool { return h.banger("vm", "show", "eph").code == 3 })
	h.empty()
}

func TestAKeepersDeathTakesItsVMMWithIt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.create("k")
	qemu := h.one("qemu-system", vm.ID)
	if err := syscall.Kill(h.one("keeper", vm.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually("the VMM is gone", 10*time.Second, func() bool { return syscall.Kill(qemu, 0) != nil })
	h.eventually("it shows as stopped", 10*time.Second, func() bool { return h.show("k").Status == api.StatusStopped })
	if got := h.show("k"); got.Error == nil || !strings.Contains(got.Error.Message, "keeper") {
		t.Errorf("expected the reason: %+v", got.Error)
	}
	h.ok("vm", "start", "k")
	h.sh("k", "true")
}

func TestAVMMsDeathIsSeenWithTheReason(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.create("q")
	if err := syscall.Kill(h.one("qemu-system", vm.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually("it shows as stopped", 10*time.Second, func() bool { return h.show("q").Status == api.StatusStopped })
	if got := h.show("q"); got.Error == nil || !strings.Contains(got.Error.Message, "signal") {
		t.Errorf("expected the reason: %+v", got.Error)
	}
}

func TestASecondDaemonOnTheSameRootIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "list")
	h.fails(5, []string{"another daemon"}, "daemon", "run")
	h.ok("vm", "list")
}

func TestTwoRootsSideBySide(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	a.create("same")
	b.create("same")
	a.sh("same", "echo a > /root/who")
	b.sh("same", "echo b > /root/who")
	if x, y := a.sh("same", "cat /root/who"), b.sh("same", "cat /root/who"); x != "a" || y != "b" {
		t.Errorf("%q %q", x, y)
	}
	a.ok("vm", "delete", "--force", "same")
	b.sh("same", "true")
}

func TestStaleSocketsAreNoObstacle(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := os.MkdirAll(filepath.Join(h.root, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(h.root, "run/daemon.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	h.ok("vm", "list")
}

func TestManyClientsStartOneDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { h.ok("vm", "list") })
	}
	wg.Wait()
	h.one("daemon run")
}

func TestConsoleLogsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.create("loud")
	h.sh("loud", "yes 'a line of console output, over and over' | head -c 6000000 > /dev/console")
	var total int64
	files, err := filepath.Glob(filepath.Join(h.root, "state/vms", vm.ID, "console.log*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += fi.Size()
	}
	if total > 3<<20 || total < 1<<19 {
		t.Errorf("%d bytes in %v", total, files)
	}
	h.sh("loud", "true")
}

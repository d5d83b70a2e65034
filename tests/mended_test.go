package tests

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// A disk that is lost is never replaced by an empty one: the start fails and
// names the file, and once it is back so is what was on it.
func TestALostDiskIsNeverMadeAnew(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.create("torn", "--disk-size", "1G")
	h.sh("torn", "echo precious > /root/data")
	h.ok("vm", "stop", "torn")
	disk := filepath.Join(h.root, "state/vms", vm.ID, "work.ext4")
	aside := disk + ".aside"
	for what, harm := range map[string]func() error{
		"missing":           func() error { return nil },
		"cut off":           func() error { return os.WriteFile(disk, make([]byte, 100<<20), 0o600) },
		"no regular file":   func() error { return os.Mkdir(disk, 0o700) },
		"is cut off at 0B":  func() error { return os.WriteFile(disk, nil, 0o600) },
		"no regular file: ": func() error { return os.Symlink(aside, disk) },
	} {
		if err := os.Rename(disk, aside); err != nil {
			t.Fatal(err)
		}
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if what == "cut off" { // with the file system's own account of its size
			whole, err := os.Open(aside)
			if err != nil {
				t.Fatal(err)
			}
			head := make([]byte, 1<<20)
			if _, err := whole.ReadAt(head, 0); err != nil {
				t.Fatal(err)
			}
			whole.Close()
			if err := os.WriteFile(disk, append(head, make([]byte, 100<<20)...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		word := strings.TrimSuffix(what, ": ")
		h.fails(5, []string{disk, word, "hint:"}, "vm", "start", "torn")
		h.fails(5, []string{disk}, "vm", "restart", "torn")
		if got := h.show("torn"); got.Status != api.StatusStopped || what != "cut off" && (got.Error == nil || !strings.Contains(got.Error.Message, disk)) {
			t.Errorf("%s: %s, %+v", what, got.Status, got.Error)
		}
		if err := os.RemoveAll(disk); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, disk); err != nil {
			t.Fatal(err)
		}
	}
	h.ok("vm", "start", "torn")
	if got := h.sh("torn", "cat /root/data"); got != "precious" {
		t.Errorf("%q", got)
	}
}

// A command given in the very moment of the daemon's death is done by the next.
func TestCommandsInTheMomentOfTheDaemonsDeath(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("beta")
	for i := range 12 {
		h.killDaemon()
		switch i % 3 {
		case 0:
			h.ok("vm", "exec", "beta", "true")
		case 1:
			h.ok("ps")
		case 2:
			h.ok("vm", "show", "beta")
		}
	}
}

// A terminal that is closed, or a kill, is a Ctrl-C: it leaves nothing.
func TestAClosedTerminalWhileCreatingLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for i, delay := range []time.Duration{30, 100, 400, 900} {
		for _, args := range [][]string{{"vm", "create"}, {"vm", "run", "--", "sleep", "600"}} {
			sig := []os.Signal{syscall.SIGHUP, syscall.SIGTERM}[i%2]
			cmd := h.command(context.Background(), append(args[:2:2], append([]string{"--vcpu", "1", "--memory", "512M"}, args[2:]...)...)...)
			var errOut bytes.Buffer
			cmd.Stderr = &errOut
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(delay * time.Millisecond) // the moment is what is varied
			_ = cmd.Process.Signal(sig)
			if code := exitCode(t, cmd.Wait()); code != 130 {
				t.Errorf("%v, %v after %v: expected 130, got %d: %s", args, sig, delay, code, errOut.String())
			}
			h.empty()
		}
	}
}

func TestStoppedMachinesAreNoErrorsInTheLog(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "create", "--no-start", "--name", "new")
	h.create("stopped")
	h.ok("vm", "stop", "stopped")
	h.ok("daemon", "restart")
	log, err := os.ReadFile(filepath.Join(h.root, "state/daemon.log"))
	if err != nil || bytes.Contains(log, []byte("ERROR")) {
		t.Errorf("%v\n%s", err, log)
	}
}

// The host's disk fills: what needs room is refused with the figure before
// anything is done; a guest that writes on waits, says so, and goes on when
// there is room; the machine that fills the disk can be stopped and deleted.
func TestTheHostsDiskFills(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	t.Parallel()
	h := onDisk(t, func(state string) {
		if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=760m,mode=700"); err != nil {
			t.Skipf("cannot mount a small disk: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(state, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	})
	state := filepath.Join(h.root, "state")
	h.ok("vm", "list") // sets the rights of what was copied
	filler := filepath.Join(state, "filler")
	room := func(left int64) {
		t.Helper()
		_ = os.Remove(filler)
		var st unix.Statfs_t
		if err := unix.Statfs(state, &st); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if n := int64(st.Bavail)*st.Frsize - left; n > 0 {
			if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	room(100 << 20)
	h.fails(9, []string{"of disk are free", "128MiB are needed"}, "vm", "create", "--name", "web")
	if left, err := os.ReadDir(filepath.Join(state, "vms")); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
	_ = os.Remove(filler)
	h.create("web", "--network", "none")
	room(60 << 20)
	cmd := h.command(context.Background(), "vm", "exec", "web", "--", "sh", "-c", "head -c 100000000 /dev/urandom > /root/big && sync && sha256sum < /root/big > /root/sum && echo written")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.eventually("it says that it waits", patience, func() bool {
		vm := h.show("web")
		return vm.Error != nil && vm.Error.Kind == api.KindNoSpace && vm.Status == api.StatusRunning && vm.Error.Hint != ""
	})
	h.ok("daemon", "restart") // on a full disk, too; and it still knows
	h.eventually("the next daemon says so, too", patience, func() bool { vm := h.show("web"); return vm.Error != nil })
	_ = cmd.Wait() // its daemon left
	_ = os.Remove(filler)
	h.eventually("it goes on", patience, func() bool { return h.show("web").Error == nil })
	if got := h.sh("web", "sync; echo alive"); got != "alive" {
		t.Errorf("%q", got)
	}
	room(8 << 20)
	h.ok("vm", "exec", "-d", "web", "--", "sh", "-c", "head -c 100000000 /dev/urandom > /root/more; sync")
	h.eventually("it waits again", patience, func() bool { return h.show("web").Error != nil })
	r := h.ok("vm", "stop", "--timeout", "3s", "web")
	t.Logf("stopped on the full disk: %s", r.stderr)
	h.ok("vm", "delete", "--yes", "web")
}

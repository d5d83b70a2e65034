package tests

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

// withKVM is a host to whose banger the file is /dev/kvm: mounted over it, in a
// mount namespace that nobody else is in. Through more of a command line, if need
// be.
func (h *host) withKVM(file string, more ...string) {
	h.t.Helper()
	if os.Geteuid() != 0 {
		h.t.Skip("needs root to put something else in the place of /dev/kvm")
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		h.t.Skipf("%v: it is mounted over", err)
	}
	h.through = append([]string{
		"unshare", "--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /dev/kvm && exec "$@"`, file,
	}, more...)
}

// accelerator is doctor's finding on it.
func (h *host) accelerator() api.Check {
	h.t.Helper()
	var checks []api.Check
	h.json(&checks, "doctor", "--json")
	for _, c := range checks {
		if c.Name == "accelerator" {
			return c
		}
	}
	h.t.Fatalf("doctor says nothing about the accelerator: %+v", checks)
	return api.Check{}
}

// emulated checks what is chosen without KVM, and that both doctor and the machine
// say why in these words; and that nothing comes of it where KVM is a must.
func (h *host) emulated(words ...string) {
	h.t.Helper()
	said := h.accelerator()
	if said.Status != api.CheckWarn || !strings.HasPrefix(said.Message, "qemu with tcg: ") {
		h.t.Errorf("doctor: %+v", said)
	}
	told := []string{said.Message}
	if os.Getenv("BANGER_LAB") == "" { // which is too slow for a machine that is emulated in turn
		vm := h.create("slow", "--network", "none")
		if vm.Driver != "qemu" || vm.Accelerator != "tcg" || h.sh("slow", "uname -s") != "Linux" {
			h.t.Errorf("a machine has %s with %s", vm.Driver, vm.Accelerator)
		}
		told = append(told, vm.AcceleratorReason)
		h.ok("vm", "delete", "--force", "--yes", "slow")
	}
	for _, text := range told {
		for _, w := range words {
			if !strings.Contains(text, w) {
				h.t.Errorf("it says %q, and nothing of %q", text, w)
			}
		}
	}
	h.fails(8, append(words[:1:1], "cannot use kvm", "hint: banger doctor"), "vm", "create", "--name", "fast", "--accel", "kvm")
	if os.Getenv("BANGER_TEST_DRIVER") == "firecracker" {
		h.fails(8, append(words[:1:1], "cannot use firecracker", "hint: banger doctor"), "vm", "create", "--name", "fast", "--driver", "firecracker")
	}
	h.empty()
}

// A /dev/kvm that opens, and does nothing of what it should: what works is taken,
// and why is told, whatever was found out about the one before.
func TestKVMThatLies(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.withKVM("/dev/null")
	h.emulated("/dev/kvm opens, but", "Inappropriate ioctl")
}

// Nobody may open /dev/kvm: doctor and vm show say so, with what mends it.
func TestKVMDenied(t *testing.T) {
	t.Parallel()
	dev, err := user.Lookup("dev")
	if os.Getenv("BANGER_LAB") == "" || err != nil || os.Geteuid() != 0 {
		t.Skip("the lab's root runs this as its user dev")
	}
	h := newEmptyHost(t)
	closed := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(closed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"cp", "-a", "--sparse=always", filepath.Join(baseRoot, "state"), h.root},
		{"chown", "-R", "dev:", h.root},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", c, err, out)
		}
	}
	h.withKVM(closed, "setpriv", "--reuid", dev.Uid, "--regid", dev.Gid, "--init-groups", "--")
	h.env = append(h.env, "HOME="+dev.HomeDir)
	h.emulated("no permission to open /dev/kvm")
	if hint := h.accelerator().Hint; hint != "sudo usermod -aG kvm $USER" {
		t.Errorf("hint %q", hint)
	}
}

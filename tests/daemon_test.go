package tests

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

func TestDoctor(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var checks []api.Check
	r := h.banger("doctor", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &checks); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	failed, seen := false, ""
	for _, c := range checks {
		failed = failed || c.Status == api.CheckFail
		seen += c.Name + "=" + c.Status + " (" + c.Message + ")\n"
	}
	if failed != (r.code == 1) {
		t.Errorf("code %d with\n%s", r.code, seen)
	}
	if failed {
		t.Errorf("a machine that runs these tests is healthy:\n%s", seen)
	}
	for _, want := range []string{"accel", "qemu", "disk", "image", "kernel", "store"} {
		if !strings.Contains(seen, want) {
			t.Errorf("no check of %s in\n%s", want, seen)
		}
	}
}

// The probe decides by a real guest: where /dev/kvm exists and works it is kvm,
// else emulation, and the reason is said.
func TestTheAcceleratorAndItsReasonAreShown(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.create("acc")
	if vm.Accelerator != "kvm" && vm.Accelerator != "tcg" {
		t.Fatalf("%+v", vm)
	}
	if vm.AcceleratorReason == "" {
		t.Error("no reason given")
	}
	if _, err := os.Stat("/dev/kvm"); err != nil && vm.Accelerator != "tcg" {
		t.Errorf("kvm without /dev/kvm: %+v", vm)
	}
	t.Logf("%s: %s", vm.Accelerator, vm.AcceleratorReason)
}

func TestDaemonCommands(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var d api.Daemon
	h.ok("vm", "list")
	h.json(&d, "daemon", "status", "--json")
	if d.PID == 0 || !strings.HasPrefix(d.Socket, h.root) {
		t.Errorf("%+v", d)
	}
	h.ok("daemon", "restart")
	var again api.Daemon
	h.json(&again, "daemon", "status", "--json")
	if again.PID == d.PID {
		t.Error("the same process after a restart")
	}
	h.ok("daemon", "stop")
	h.ok("daemon", "stop")
	if left := h.processes("daemon run"); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

func TestListIsAnEmptyArray(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if r := h.ok("vm", "list", "--json"); strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("%v", r)
	}
}

func TestVersionAndCompletionStartNoDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("version")
	h.ok("version", "--json")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		h.ok("completion", shell)
	}
	h.ok("__complete", "vm", "show", "")
	if left := h.processes(); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

func TestConfigShow(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.writeConfig("[vm_defaults]\nvcpu = 1\n")
	var values []api.ConfigValue
	h.json(&values, "config", "show", "--json")
	sources := map[string]string{}
	for _, v := range values {
		sources[v.Key] = v.Source
	}
	if sources["vm_defaults.vcpu"] != "file" || sources["default_image_name"] != "default" {
		t.Errorf("%+v", sources)
	}
}

package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/version"
	"github.com/bangervm/banger/internal/vm"
	"github.com/bangervm/banger/internal/vmm"
)

// soundDoctor sees a host with nothing wrong.
func soundDoctor(t *testing.T) *doctor {
	some := func(context.Context) (string, error) { return "some", nil }
	return &doctor{
		layout: testLayout(t), info: version.Info{Version: "1", Build: "cafe"},
		replaced: func() bool { return false },
		accelerator: func(context.Context) (vm.Choice, error) {
			return vm.Choice{Driver: "firecracker", Accelerator: vmm.KVM, Reason: "a guest booted"}, nil
		},
		vmms:       []vmm.Driver{namedDriver{name: "firecracker"}, namedDriver{}},
		tools:      hostTools(false),
		tool:       func(_ context.Context, name string) (string, error) { return name + " 1.0", nil },
		namespaces: func(context.Context) error { return nil },
		groups:     func() error { return nil },
		free:       func(string) (int64, error) { return 100 << 30, nil },
		memory:     func() (int64, error) { return 8 << 30, nil },
		resolvers:  func() ([]string, error) { return []string{"192.0.2.1"}, nil },
		store:      func(context.Context) error { return nil },
		guest:      func() error { return nil },
		rootDisks: func() []vm.RootDisk {
			return []vm.RootDisk{{Name: "overlay"}, {Name: "reflink", Err: errors.New("cannot clone x: no")}, {Name: "other"}}
		},
		image: some, kernel: some,
	}
}

func TestDoctorSaysWhichRootDisksThereAre(t *testing.T) {
	t.Parallel()
	for _, c := range soundDoctor(t).run(t.Context(), "cafe") {
		if want := "overlay (the default); reflink: no, no; other: yes"; c.Name == "root-disks" && c.Message != want {
			t.Errorf("%q, want %q", c.Message, want)
		}
	}
}

func TestDoctorOnASoundHost(t *testing.T) {
	t.Parallel()
	var names []string
	for _, c := range soundDoctor(t).run(t.Context(), "cafe") {
		names = append(names, c.Name)
		if c.Status != api.CheckPass || c.Message == "" {
			t.Errorf("%+v", c)
		}
	}
	want := []string{
		"builds", "folders", "store", "disk-space", "memory", "vmm", "accelerator", "guest-binary", "root-disks",
		"tool-mke2fs", "tool-e2fsck", "tool-resize2fs", "tool-mmdebstrap", "tool-newuidmap",
		"user-namespaces", "control-groups", "dns", "image", "kernel",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestDoctorFindings(t *testing.T) {
	t.Parallel()
	broken := errors.New("it is broken")
	absent := func(context.Context) (string, error) {
		return "debian-bookworm", api.Errorf(api.KindNotFound, "cannot find it")
	}
	tests := []struct {
		check, status, message, hint string
		client                       string
		spoil                        func(*doctor)
	}{
		{"builds", "warn", "build cafe", "banger daemon restart", "beef", func(*doctor) {}},
		{"builds", "warn", "was replaced", "banger daemon restart", "", func(d *doctor) { d.replaced = func() bool { return true } }},
		{"folders", "fail", "/dev/null", "BANGER_ROOT", "", func(d *doctor) { d.layout.State = "/dev/null" }},
		{"store", "fail", "it is broken", "", "", func(d *doctor) { d.store = func(context.Context) error { return broken } }},
		{"disk-space", "fail", "too little for a VM", "banger vm prune", "", func(d *doctor) { d.free = func(string) (int64, error) { return 1 << 20, nil } }},
		{"disk-space", "warn", "1GiB free", "banger vm prune", "", func(d *doctor) { d.free = func(string) (int64, error) { return 1 << 30, nil } }},
		{"disk-space", "fail", "it is broken", "", "", func(d *doctor) { d.free = func(string) (int64, error) { return 0, broken } }},
		{"memory", "warn", "too little", "banger ps", "", func(d *doctor) { d.memory = func() (int64, error) { return 1 << 20, nil } }},
		{"vmm", "fail", "no firecracker: it is broken; no qemu: it is broken", "apt install qemu", "", func(d *doctor) {
			d.vmms = []vmm.Driver{namedDriver{name: "firecracker", err: broken}, namedDriver{err: broken}}
		}},
		{"vmm", "fail", "too old", "its own hint", "", func(d *doctor) {
			d.vmms = []vmm.Driver{namedDriver{err: api.Errorf(api.KindUnsupported, "too old").WithHint("its own hint")}}
		}},
		{"vmm", "pass", "qemu 7.2, /bin/qemu; no firecracker: not in PATH", "", "", func(d *doctor) {
			d.vmms[0] = namedDriver{name: "firecracker", err: api.Errorf(api.KindUnavailable, "cannot find Firecracker: not in PATH")}
		}},
		{"vmm", "pass", "firecracker 7.2, /bin/firecracker (newer than known); qemu 7.2", "", "", func(d *doctor) {
			d.vmms[0] = namedDriver{name: "firecracker", note: "newer than known"}
		}},
		{"accelerator", "pass", "firecracker with kvm: a guest booted", "", "", func(*doctor) {}},
		{"accelerator", "warn", "qemu with tcg: no permission", "usermod -aG kvm", "", func(d *doctor) {
			d.accelerator = func(context.Context) (vm.Choice, error) {
				return vm.Choice{Driver: "qemu", Accelerator: vmm.TCG, Reason: "no permission to open /dev/kvm"}, nil
			}
		}},
		{"accelerator", "warn", "several times slower", "", "", func(d *doctor) {
			d.accelerator = func(context.Context) (vm.Choice, error) {
				return vm.Choice{Driver: "qemu", Accelerator: vmm.TCG, Reason: "no output"}, nil
			}
		}},
		{"accelerator", "skip", "no kernel yet", "", "", func(d *doctor) {
			d.accelerator = func(context.Context) (vm.Choice, error) {
				return vm.Choice{}, api.Errorf(api.KindNotFound, "no kernel yet")
			}
		}},
		{"guest-binary", "fail", "it is broken", "make build", "", func(d *doctor) { d.guest = func() error { return broken } }},
		{"tool-mmdebstrap", "fail", "building the default image", "sudo apt install mmdebstrap", "", func(d *doctor) {
			d.tool = func(context.Context, string) (string, error) { return "", broken }
		}},
		{"user-namespaces", "skip", "root", "", "", func(d *doctor) { d.root = true }},
		{"control-groups", "warn", "no limits of control groups on memory, processes and processors: it is broken", "", "", func(d *doctor) { d.groups = func() error { return broken } }},
		{"control-groups", "warn", "version 1", "Delegate=yes", "", func(d *doctor) {
			d.groups = func() error { return api.Errorf(api.KindUnsupported, "this host has control groups of version 1 only") }
		}},
		{"control-groups", "warn", "version 1", "", "", func(d *doctor) {
			d.root = true
			d.groups = func() error { return api.Errorf(api.KindUnsupported, "this host has control groups of version 1 only") }
		}},
		{"control-groups", "skip", "no driver", "", "", func(d *doctor) { d.vmms = d.vmms[1:] }},
		{"control-groups", "skip", "no driver", "", "", func(d *doctor) {
			d.vmms[0] = namedDriver{name: "firecracker", err: broken}
		}},
		{"user-namespaces", "fail", "it is broken", "uidmap", "", func(d *doctor) { d.namespaces = func(context.Context) error { return broken } }},
		{"dns", "warn", "no DNS resolver", "resolv.conf", "", func(d *doctor) { d.resolvers = func() ([]string, error) { return nil, nil } }},
		{"image", "warn", "debian-bookworm is not here yet", "banger image pull debian-bookworm", "", func(d *doctor) { d.image = absent }},
		{"kernel", "fail", "it is broken", "", "", func(d *doctor) { d.kernel = func(context.Context) (string, error) { return "", broken } }},
		{"kernel", "fail", "the check itself failed", "", "", func(d *doctor) { d.kernel = func(context.Context) (string, error) { panic("boom") } }},
	}
	for _, tt := range tests {
		d := soundDoctor(t)
		tt.spoil(d)
		for _, c := range d.run(t.Context(), tt.client) {
			if c.Name != tt.check {
				continue
			}
			if c.Status != tt.status || !strings.Contains(c.Message, tt.message) || !strings.Contains(c.Hint, tt.hint) {
				t.Errorf("%s: %+v\nwant %s, %q, %q", tt.check, c, tt.status, tt.message, tt.hint)
			}
		}
	}
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
)

// namedDriver can be asked for its name, its version and what it can do only.
type namedDriver struct {
	vmm.Driver
	name string // qemu if empty
	note string
	err  error
}

func (d namedDriver) Name() string {
	if d.name == "" {
		return "qemu"
	}
	return d.name
}

func (d namedDriver) Check(context.Context) (vmm.Version, error) {
	return vmm.Version{Program: "/bin/" + d.Name(), Text: "7.2", Note: d.note}, d.err
}

func (d namedDriver) Capabilities() vmm.Capabilities {
	if d.name == "firecracker" {
		return vmm.Capabilities{Groups: true, Accelerators: []vmm.Accelerator{vmm.KVM}, Transports: []guestapi.Transport{guestapi.TransportVsock}}
	}
	return vmm.Capabilities{Accelerators: []vmm.Accelerator{vmm.KVM, vmm.TCG}, Transports: []guestapi.Transport{guestapi.TransportSerial}}
}

// anyKernel has the drivers of all transports.
func anyKernel(layout.KernelDir, guestapi.Transport) error { return nil }

func TestChoose(t *testing.T) {
	t.Parallel()
	missing := api.Errorf(api.KindUnavailable, "cannot find QEMU: not in PATH")
	noFirecracker := api.Errorf(api.KindUnavailable, "cannot find Firecracker: not in PATH")
	old := api.Errorf(api.KindUnsupported, "cannot use kernel 6.1: an older banger made it")
	tests := []struct {
		name                string
		driver, accelerator string
		fc, qemu            vmm.Accelerator // what their probes find; empty: must not be asked
		noFC, noQEMU        error
		kernel              error // for vsock
		want                string
		reason              string
		kind                api.Kind
	}{
		{name: "kvm works", driver: "auto", accelerator: "auto", fc: vmm.KVM, want: "firecracker kvm vsock", reason: "firecracker's probe"},
		{name: "nothing said", fc: vmm.KVM, want: "firecracker kvm vsock", reason: "firecracker's probe"},
		{name: "kvm asked for", accelerator: "kvm", fc: vmm.KVM, want: "firecracker kvm vsock", reason: "firecracker's probe"},
		{name: "no firecracker", noFC: noFirecracker, qemu: vmm.KVM, want: "qemu kvm serial", reason: "qemu's probe; not firecracker: not in PATH"},
		{name: "kvm fails under firecracker", fc: vmm.TCG, qemu: vmm.KVM, want: "qemu kvm serial", reason: "qemu's probe; not firecracker: firecracker's probe"},
		{name: "no kvm", fc: vmm.TCG, qemu: vmm.TCG, want: "qemu tcg serial", reason: "qemu's probe; not firecracker: firecracker's probe"},
		{name: "kernel without vsock", kernel: old, qemu: vmm.KVM, want: "qemu kvm serial", reason: "qemu's probe; not firecracker: an older banger made it"},
		{name: "tcg asked for", accelerator: "tcg", want: "qemu tcg serial", reason: "asked for"},
		{name: "qemu asked for", driver: "qemu", qemu: vmm.KVM, want: "qemu kvm serial", reason: "qemu's probe"},
		{name: "qemu and tcg asked for", driver: "qemu", accelerator: "tcg", want: "qemu tcg serial", reason: "asked for"},
		{name: "firecracker asked for", driver: "firecracker", fc: vmm.KVM, want: "firecracker kvm vsock", reason: "firecracker's probe"},
		{name: "firecracker without kvm", driver: "firecracker", fc: vmm.TCG, kind: api.KindUnsupported, reason: "cannot use firecracker: firecracker's probe"},
		{name: "firecracker in emulation", driver: "firecracker", accelerator: "tcg", kind: api.KindUnsupported, reason: "it has no accelerator tcg"},
		{name: "firecracker, but there is none", driver: "firecracker", noFC: noFirecracker, kind: api.KindUnavailable, reason: "cannot find Firecracker"},
		{name: "firecracker, but the kernel is old", driver: "firecracker", kernel: old, kind: api.KindUnsupported, reason: "an older banger made it"},
		{name: "kvm in vain", accelerator: "kvm", fc: vmm.TCG, qemu: vmm.TCG, kind: api.KindUnsupported, reason: "cannot use kvm"},
		{name: "another driver", driver: "xen", kind: api.KindUnsupported, reason: "has firecracker and qemu"},
		{name: "nonsense", accelerator: "turbo", kind: api.KindInvalid, reason: "turbo"},
		{name: "nothing there", noFC: noFirecracker, noQEMU: missing, kind: api.KindUnavailable, reason: "cannot find QEMU"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			probe := func(name string, found vmm.Accelerator) probeFunc {
				return func(context.Context, layout.KernelDir) (vmm.Accelerator, string, error) {
					if found == "" {
						t.Errorf("%s was probed", name)
					}
					return found, name + "'s probe", nil
				}
			}
			c := newChooser(func(_ layout.KernelDir, transport guestapi.Transport) error {
				if transport == guestapi.TransportVsock {
					return tt.kernel
				}
				return nil
			}, candidate{namedDriver{name: "firecracker", err: tt.noFC}, probe("firecracker", tt.fc)}, candidate{namedDriver{err: tt.noQEMU}, probe("qemu", tt.qemu)})
			got, err := c.Choose(t.Context(), tt.driver, tt.accelerator, layout.KernelDir{})
			if api.KindOf(err) != tt.kind {
				t.Fatalf("%+v, %v", got, err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("got %v, want %q", err, tt.reason)
				}
			} else if text := fmt.Sprintf("%s %s %s", got.Driver, got.Accelerator, got.Transport); text != tt.want || got.Reason != tt.reason {
				t.Errorf("got %s (%s), want %s (%s)", text, got.Reason, tt.want, tt.reason)
			}
			if err := c.close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProbeIsShared(t *testing.T) {
	t.Parallel()
	var probes atomic.Int32
	release := make(chan struct{})
	c := newChooser(anyKernel, candidate{namedDriver{}, func(ctx context.Context, _ layout.KernelDir) (vmm.Accelerator, string, error) {
		probes.Add(1)
		select {
		case <-release:
			return vmm.TCG, "no output", nil
		case <-ctx.Done():
			return "", "", ctx.Err()
		}
	}})
	// The one that began it gives up; the others get the verdict.
	impatient, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := c.Choose(impatient, "", "", layout.KernelDir{})
		gaveUp <- err
	}()
	for probes.Load() == 0 {
	}
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient one got %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := c.Choose(t.Context(), "", "", layout.KernelDir{}); err != nil || got.Accelerator != vmm.TCG {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // no more than they need to ask
	if n := probes.Load(); n != 1 {
		t.Errorf("%d probes", n)
	}
	close(release)
	wg.Wait()
	if err := c.close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Choose(t.Context(), "", "", layout.KernelDir{}); err == nil {
		t.Error("a closed chooser chose")
	}
}

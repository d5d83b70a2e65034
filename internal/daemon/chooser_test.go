package daemon

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
)

// namedDriver can be asked for its name and version only.
type namedDriver struct {
	vmm.Driver
	err error
}

func (namedDriver) Name() string { return "qemu" }
func (d namedDriver) Check(context.Context) (vmm.Version, error) {
	return vmm.Version{Program: "/bin/qemu", Text: "7.2"}, d.err
}

func TestChoose(t *testing.T) {
	t.Parallel()
	missing := api.Errorf(api.KindUnavailable, "cannot find QEMU")
	tests := []struct {
		name                string
		driver, accelerator string
		found               vmm.Accelerator
		check               error
		want                vmm.Accelerator
		kind                api.Kind
		probed              bool
	}{
		{name: "auto with kvm", driver: "auto", accelerator: "auto", found: vmm.KVM, want: vmm.KVM, probed: true},
		{name: "auto without kvm", accelerator: "auto", found: vmm.TCG, want: vmm.TCG, probed: true},
		{name: "nothing said", found: vmm.TCG, want: vmm.TCG, probed: true},
		{name: "tcg asked for", driver: "qemu", accelerator: "tcg", found: vmm.KVM, want: vmm.TCG},
		{name: "kvm asked for", accelerator: "kvm", found: vmm.KVM, want: vmm.KVM, probed: true},
		{name: "kvm in vain", accelerator: "kvm", found: vmm.TCG, kind: api.KindUnsupported, probed: true},
		{name: "another driver", driver: "firecracker", kind: api.KindUnsupported},
		{name: "nonsense", accelerator: "turbo", kind: api.KindInvalid},
		{name: "no qemu", check: missing, kind: api.KindUnavailable},
	}
	for _, tt := range tests {
		probed := false
		c := newChooser(namedDriver{err: tt.check}, func(context.Context, layout.KernelDir) (vmm.Accelerator, string, error) {
			probed = true
			return tt.found, "because", nil
		})
		got, err := c.Choose(t.Context(), tt.driver, tt.accelerator, layout.KernelDir{})
		if api.KindOf(err) != tt.kind || got.Accelerator != tt.want || probed != tt.probed || err == nil && got.Reason == "" {
			t.Errorf("%s: %+v, %v, probed %t", tt.name, got, err, probed)
		}
		if err := c.close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestProbeIsShared(t *testing.T) {
	t.Parallel()
	var probes atomic.Int32
	release := make(chan struct{})
	c := newChooser(namedDriver{}, func(ctx context.Context, _ layout.KernelDir) (vmm.Accelerator, string, error) {
		probes.Add(1)
		select {
		case <-release:
			return vmm.TCG, "no output", nil
		case <-ctx.Done():
			return "", "", ctx.Err()
		}
	})
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

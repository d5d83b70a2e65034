package vm

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// Configured limits hold for every machine from its next start on, and what is
// shown is what it runs with.
func TestLimitsHoldFromTheNextStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.create("web")
	alone := w.settle(w.m.Create(bg, api.CreateVM{Name: "alone", Network: "none"}))
	if web.Limits != nil || alone.Status != api.OperationSucceeded {
		t.Fatalf("%+v, %+v", web.Limits, alone)
	}
	disk := vmm.Limits{DiskBytesPerSecond: 8 << 20, DiskOperationsPerSecond: 500}
	all := api.VMLimits{DiskBytesPerSecond: 8 << 20, DiskOperationsPerSecond: 500, NetworkBytesPerSecond: 1 << 20}
	w.leave()
	w.boot() // a daemon with the same settings
	w.m.d.Defaults.Limits = all
	if v := w.show("web"); v.Limits != nil {
		t.Errorf("it runs without limits, and %+v are shown", v.Limits)
	}
	for name, want := range map[string]struct {
		shown   api.VMLimits
		network int64
	}{
		"web":   {all, 1 << 20},
		"alone": {api.VMLimits{DiskBytesPerSecond: 8 << 20, DiskOperationsPerSecond: 500}, 0},
	} {
		w.must(w.m.Restart(bg, name))
		v := w.show(name)
		boot := w.ks.get(v.ID).boot
		if diff := cmp.Diff(&want.shown, v.Limits); diff != "" || boot.Spec.Limits != disk || boot.NetworkBytesPerSecond != want.network {
			t.Errorf("%s is started with %+v and %d: %s", name, boot.Spec.Limits, boot.NetworkBytesPerSecond, diff)
		}
	}
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	w.m.d.Defaults.Limits = api.VMLimits{}
	if v := w.show("web"); v.Limits == nil {
		t.Error("a stopped machine does not show what it ran with")
	}
	w.must(w.m.Start(bg, "web"))
	if v := w.show("web"); v.Limits != nil || w.ks.get(v.ID).boot.Spec.Limits != (vmm.Limits{}) {
		t.Errorf("without limits again: %+v", v.Limits)
	}
}

// A stop gives a guest whose disks are limited the time to write what it holds.
func TestAStopWaitsForLimitedDisks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := w.m.stopLimit(store.VM{MemoryBytes: 512 << 20}, "kvm")
	for name, c := range map[string]struct {
		memory int64
		limits api.VMLimits
		want   time.Duration
	}{
		"no limit of disks":      {512 << 20, api.VMLimits{NetworkBytesPerSecond: 1 << 20}, 0},
		"bytes":                  {512 << 20, api.VMLimits{DiskBytesPerSecond: 1 << 20}, 128 * time.Second},
		"operations":             {512 << 20, api.VMLimits{DiskOperationsPerSecond: 128}, 16 * time.Second},
		"both, bytes are less":   {512 << 20, api.VMLimits{DiskBytesPerSecond: 4 << 20, DiskOperationsPerSecond: 128}, 32 * time.Second},
		"both, operations are":   {512 << 20, api.VMLimits{DiskBytesPerSecond: 64 << 20, DiskOperationsPerSecond: 128}, 16 * time.Second},
		"so fast that it is one": {128 << 20, api.VMLimits{DiskBytesPerSecond: 1 << 40}, 0},
		"bounded":                {64 << 30, api.VMLimits{DiskBytesPerSecond: 1 << 20}, maxFlush},
	} {
		got := w.m.stopLimit(store.VM{MemoryBytes: c.memory, Limits: &c.limits}, "kvm") - plain
		if got != c.want {
			t.Errorf("%s: %s more, not %s", name, got, c.want)
		}
	}
}

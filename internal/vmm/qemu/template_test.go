package qemu

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/vmmtest"
)

// realTemplate makes a template, and gives the maker of machines that go on from it.
func realTemplate(t *testing.T) (d *Driver, from func(t *testing.T) vmm.Spec) {
	t.Helper()
	machines := vmmtest.RealMachines(t, vmm.TCG, guestapi.TransportSerial, "")
	d = newTestDriver(t) // skips where there is no QEMU
	m := machines(t)
	m.WriteInitrd(t, guestapi.Config{Protocol: guestapi.Protocol, Park: true})
	for i := range m.Spec.Disks { // the guest does not look at them
		path := filepath.Join(m.Spec.RunDir, m.Spec.Disks[i].Serial+".none")
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Spec.Disks[i].Path = path
	}
	into := vmm.Template{Memory: filepath.Join(t.TempDir(), "memory"), State: filepath.Join(t.TempDir(), "state")}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := d.MakeTemplate(ctx, m.Spec, into); err != nil {
		t.Fatal(err)
	}
	return d, func(t *testing.T) vmm.Spec {
		m := machines(t)
		m.WriteInitrd(t, m.Config)
		m.Spec.Template, m.Spec.Wake = &into, &guestapi.Wake{Config: m.Config}
		return m.Spec
	}
}

// The suite with guests that go on from a template.
func TestConformanceTemplate(t *testing.T) {
	d, specs := realTemplate(t)
	vmmtest.Run(t, func(*testing.T) vmm.Driver { return d }, specs)
}

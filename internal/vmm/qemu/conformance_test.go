package qemu

import (
	"testing"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/vmmtest"
)

// The suite with real guests, in emulation.
func TestConformance(t *testing.T) {
	specs := vmmtest.RealSpecs(t, vmm.TCG, guestapi.TransportSerial)
	newTestDriver(t) // skips where there is no QEMU
	vmmtest.Run(t, func(t *testing.T) vmm.Driver { return newTestDriver(t) }, specs)
}

// The same with KVM, for the lab: elsewhere it may lie.
func TestConformanceKVM(t *testing.T) {
	specs := vmmtest.RealSpecs(t, vmm.KVM, guestapi.TransportSerial)
	newTestDriver(t)
	vmmtest.Run(t, func(t *testing.T) vmm.Driver { return newTestDriver(t) }, specs)
}

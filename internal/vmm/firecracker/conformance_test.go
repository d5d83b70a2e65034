package firecracker

import (
	"log/slog"
	"os"
	"testing"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/vmmtest"
)

// The suite with the real Firecracker and real guests, for the lab: it needs a
// /dev/kvm that works.
func TestConformance(t *testing.T) {
	specs := vmmtest.RealSpecs(t, vmm.KVM, guestapi.TransportVsock, "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	vmmtest.Run(t, func(*testing.T) vmm.Driver {
		return New(Options{Self: self}, slog.New(slog.DiscardHandler))
	}, specs)
}

package qemu

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestlink"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/vmmtest"
)

// The suite with real guests, in emulation.
func TestConformance(t *testing.T) {
	specs := vmmtest.RealSpecs(t, vmm.TCG, guestapi.TransportSerial, "")
	newTestDriver(t) // skips where there is no QEMU
	vmmtest.Run(t, func(t *testing.T) vmm.Driver { return newTestDriver(t) }, specs)
	t.Run("ResetEnds", func(t *testing.T) { resetEnds(t, specs(t)) })
}

// The same with KVM, for the lab: elsewhere it may lie.
func TestConformanceKVM(t *testing.T) {
	specs := vmmtest.RealSpecs(t, vmm.KVM, guestapi.TransportSerial, "")
	newTestDriver(t)
	vmmtest.Run(t, func(t *testing.T) vmm.Driver { return newTestDriver(t) }, specs)
	t.Run("ResetEnds", func(t *testing.T) { resetEnds(t, specs(t)) })
}

// With KVM and the guest link over vhost-vsock, for the lab: elsewhere it is
// seldom there.
func TestConformanceVsock(t *testing.T) {
	specs := vmmtest.RealSpecs(t, vmm.KVM, guestapi.TransportVsock, strings.Repeat("0", 64))
	newTestDriver(t)
	vmmtest.Run(t, func(t *testing.T) vmm.Driver { return newTestDriver(t) }, specs)
	t.Run("StrangersAreNotServed", func(t *testing.T) { strangers(t, specs(t)) })
}

// resetEnds: a guest's own reboot ends its machine. The guest is a real one: its
// process 1 is asked.
func resetEnds(t *testing.T, spec vmm.Spec) {
	m := start(t, newTestDriver(t), spec, io.Discard)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c := guestlink.NewClient(m.DialGuest, nil)
	defer c.Close()
	s, err := c.Exec(ctx, guestapi.ExecRequest{Argv: []string{"sh", "-c", "kill -TERM 1"}, NoStdin: true}, guestlink.ExecOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	select {
	case <-m.Done():
		if e := m.Exit(); e.Reason != vmm.ReasonReset {
			t.Errorf("ended with %+v", e)
		}
	case <-ctx.Done():
		t.Error("the machine does not end")
	}
}

// strangers: any user of the host can connect to a guest over vhost-vsock;
// without the token nobody gets an answer.
func strangers(t *testing.T, spec vmm.Spec) {
	m := start(t, newTestDriver(t), spec, io.Discard)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if _, err := guestlink.NewClient(m.DialGuest, nil).Health(ctx); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"none": "", "a wrong one": strings.Repeat("1", 64)} {
		stranger := newVsockLink(m.link.(*vsockLink).cid, token)
		if h, err := guestlink.NewClient(stranger.Dial, nil).Health(ctx); err == nil {
			t.Errorf("token %s: the agent said %+v", name, h)
		}
		if ctx.Err() != nil {
			t.Errorf("token %s: not refused, only never answered", name)
		}
	}
}

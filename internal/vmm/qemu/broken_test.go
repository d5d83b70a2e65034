package qemu

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/qemu/testkernel"
)

// A QEMU that talks garbage on its control channel and lives on is ended:
// nobody could stop it in order any more. Who asks it something meanwhile does
// not wait for longer than he wants.
func TestControlChannelBreaks(t *testing.T) {
	t.Parallel()
	d := stub(t, `
echo '{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":0}}}}' >&3
read line <&3; echo '{"return":{},"id":1}' >&3
read line <&3; echo '{"return":{},"id":2}' >&3
sleep 0.3
echo garbage >&3
exec sleep 60`)
	m := start(t, d, testSpec(t, new(testkernel.Program).Halt()), io.Discard)
	<-m.qmp.Done()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.PowerButton(ctx); err == nil || ctx.Err() == nil && api.KindOf(err) != api.KindBadState {
		t.Errorf("PowerButton: %v", err)
	}
	select {
	case <-m.Done():
	case <-time.After(patience / 2):
		t.Fatal("the machine goes on")
	}
	if got := m.Exit(); got.Reason != vmm.ReasonCrashed || !strings.Contains(got.Detail, "control channel") {
		t.Errorf("ended with %+v", got)
	}
}

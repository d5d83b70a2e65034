package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm/qemu/testkernel"
)

// A host without vsock for guests is told how to get it.
func TestVsockNeedsTheDevice(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "vhost-vsock")
	_, err := openVhostVsock(missing)
	if api.KindOf(err) != api.KindUnsupported || api.AsError(err).Hint == "" {
		t.Errorf("no device: %v", err)
	}
	other := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openVhostVsock(other); api.KindOf(err) != api.KindInternal {
		t.Errorf("a file that is no such device: %v", err)
	}
}

// Every user of the host reaches a guest over vsock, so none is started there
// without a token.
func TestVsockNeedsAToken(t *testing.T) {
	t.Parallel()
	spec := testSpec(t, new(testkernel.Program).Halt())
	spec.Transport = guestapi.TransportVsock
	if err := validate(spec); api.KindOf(err) != api.KindInvalid {
		t.Errorf("no token: %v", err)
	}
	spec.LinkToken = "x"
	if err := validate(spec); err != nil {
		t.Error(err)
	}
	if spec.Transport = "carrier-pigeon"; api.KindOf(validate(spec)) != api.KindInvalid {
		t.Errorf("%s is taken for a transport", spec.Transport)
	}
}

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
)

// proberOf is the probe until vmm/probe lands: it never takes /dev/kvm at its
// word, so emulation is what it finds.
func proberOf(vmm.Driver, layout.Layout, *host.Real, *slog.Logger) probeFunc {
	return func(context.Context, layout.KernelDir) (vmm.Accelerator, string, error) {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return vmm.TCG, "this host has no /dev/kvm", nil
		case errors.Is(err, os.ErrPermission):
			return vmm.TCG, "no permission to open /dev/kvm", nil
		case err != nil:
			return vmm.TCG, err.Error(), nil
		}
		f.Close()
		return vmm.TCG, "/dev/kvm was not probed by booting a guest", nil
	}
}

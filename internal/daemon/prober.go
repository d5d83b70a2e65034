package daemon

import (
	"context"
	"log/slog"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/probe"
)

// proberOf is the probe with what it needs of this host: a real guest, booted
// from the kernel the VM is to boot, decides about /dev/kvm.
func proberOf(driver vmm.Driver, l layout.Layout, world *host.Real, log *slog.Logger) probeFunc {
	return func(ctx context.Context, k layout.KernelDir) (vmm.Accelerator, string, error) {
		return probe.Run(ctx, probe.Options{
			Driver: driver, Kernel: k.VMLinux(), CachePath: l.ProbeCache(driver.Name()), HostBoot: world.BootID(), Log: log,
			Initrd: func(_ context.Context, path string) error {
				return initramfs.Write(l, path, k.BootModules(), guestapi.Config{Protocol: guestapi.Protocol, Probe: true})
			},
		})
	}
}

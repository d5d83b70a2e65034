package daemon

import (
	"context"
	"log/slog"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vm"
	"github.com/bangervm/banger/internal/vmm"
)

type keepers struct{}

func newKeepers(string) (keepers, error) { return keepers{}, nil }

func (keepers) Launch(context.Context, layout.VMDir, vm.Boot) (vm.Keeper, error) {
	return nil, api.Errorf(api.KindUnsupported, "cannot start a keeper: not wired yet")
}

func (keepers) Attach(context.Context, layout.VMDir) (vm.Keeper, error) {
	return nil, api.Errorf(api.KindNotFound, "cannot find the keeper: not wired yet")
}

func proberOf(vmm.Driver, layout.Layout, *host.Real, *slog.Logger) probeFunc {
	return func(context.Context, layout.KernelDir) (vmm.Accelerator, string, error) {
		return vmm.TCG, "not probed", nil
	}
}

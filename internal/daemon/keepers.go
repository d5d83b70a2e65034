package daemon

import (
	"context"
	"os"

	"github.com/bangervm/banger/internal/keeper"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/network"
	"github.com/bangervm/banger/internal/vm"
)

// keepers starts and finds the keeper processes of VMs, adding what is the same
// for all of them.
type keepers struct {
	network     network.User
	qemuBinary  string
	firecracker func() string // its program, wherever it was found
}

func (k keepers) Launch(ctx context.Context, dir layout.VMDir, boot vm.Boot) (vm.Keeper, error) {
	cfg := keeper.Config{Spec: boot.Spec, Driver: boot.Driver, QEMUBinary: k.qemuBinary, Token: boot.Token}
	if boot.Driver == "firecracker" {
		cfg.FirecrackerBinary = k.firecracker()
	}
	if boot.Network == "user" {
		user := k.network
		user.BytesPerSecond = boot.NetworkBytesPerSecond
		cfg.Network = &user
	}
	c, err := keeper.Launch(ctx, ownProgram(), dir, cfg)
	if err != nil {
		return nil, err
	}
	return vmKeeper{c}, nil
}

func (keepers) Attach(ctx context.Context, dir layout.VMDir) (vm.Keeper, error) {
	c, err := keeper.Attach(ctx, dir)
	if err != nil {
		return nil, err
	}
	return vmKeeper{c}, nil
}

// ownProgram is the running program: by its name, which reads well in a list of
// processes, or by the kernel's, when another file has taken its place.
func ownProgram() string {
	const self = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return self
	}
	named, err := os.Stat(path)
	if err != nil {
		return self
	}
	running, err := os.Stat(self)
	if err != nil || !os.SameFile(named, running) {
		return self
	}
	return path
}

type vmKeeper struct{ *keeper.Client }

func (k vmKeeper) State(ctx context.Context) (vm.KeeperState, error) {
	s, err := k.Client.State(ctx)
	return keeperState(s), err
}

func (k vmKeeper) Watch(ctx context.Context) (<-chan vm.KeeperState, error) {
	states, err := k.Client.Watch(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan vm.KeeperState)
	go func() { // ends with ctx or the keeper
		defer close(out)
		for s := range states {
			select {
			case out <- keeperState(s):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func keeperState(s keeper.State) vm.KeeperState {
	return vm.KeeperState{PID: s.PID, VMMPID: s.VMMPID, Exited: s.Phase == keeper.PhaseExited, Waits: s.Waits, NoTemplate: s.NoTemplate}
}

package vm

import (
	"context"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// Wait returns when the VM is running and ready, stopped, or its run's command
// has ended (exit), or with the error of ctx.
func (m *Manager) Wait(ctx context.Context, ref, target string) (api.VM, error) {
	if target != api.WaitRunning && target != api.WaitStopped && target != api.WaitExit {
		return api.VM{}, api.Errorf(api.KindInvalid, "cannot wait for %q: not one of running, stopped, exit", target)
	}
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.VM{}, err
	}
	mc := m.machine(rec.ID)
	for {
		mc.mu.Lock()
		changed, removed := mc.changed, mc.removed
		mc.mu.Unlock()
		if !removed {
			rec, err = m.d.Store.VM(ctx, rec.ID)
		}
		if removed || api.KindOf(err) == api.KindNotFound {
			return api.VM{}, api.Errorf(api.KindNotFound, "cannot wait for vm %q: it was deleted", first(rec.Name, ref)).WithHint("banger vm list")
		}
		if err != nil {
			return api.VM{}, err
		}
		v := m.view(rec)
		if reached(target, rec, v) {
			return v, nil
		}
		if target == api.WaitRunning && v.Status == api.StatusStopped && v.Error != nil {
			e := *v.Error
			return api.VM{}, e.WithHint("banger vm start %s", rec.Name)
		}
		if v.Status == api.StatusBroken {
			return api.VM{}, api.Errorf(api.KindBadState, "cannot wait for vm %q: it is broken", rec.Name).WithHint("banger vm show %s", rec.Name)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			kind := api.KindCancelled
			if context.Cause(ctx) == context.DeadlineExceeded {
				kind = api.KindTimeout
			}
			return api.VM{}, api.Errorf(kind, "cannot wait for vm %q to be %s: it is %s", rec.Name, target, v.Status)
		}
	}
}

func reached(target string, rec store.VM, v api.VM) bool {
	switch target {
	case api.WaitRunning:
		return v.Status == api.StatusRunning && v.Ready
	case api.WaitStopped:
		return v.Status == api.StatusStopped
	}
	return v.ExitCode != nil && rec.End == "" || v.Status == api.StatusStopped
}

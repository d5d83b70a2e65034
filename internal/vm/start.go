package vm

import (
	"context"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/operation"
)

// Start boots a stopped VM. On a running one it changes nothing; when it is
// starting already, it joins.
func (m *Manager) Start(ctx context.Context, ref string) (api.Operation, error) {
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.Operation{}, err
	}
	if m.status(rec) == api.StatusStopped {
		// At the door already, so that the caller need not look into an
		// operation for what is missing here.
		if _, err := m.startable(ctx, rec, m.d.Layout.VM(rec.ID)); err != nil {
			return api.Operation{}, err
		}
	}
	return m.begin(ctx, kindStart, verbStart, rec, verbParams{Ref: ref})
}

// Restart stops the VM in order, if it runs, and boots it.
func (m *Manager) Restart(ctx context.Context, ref string) (api.Operation, error) {
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.Operation{}, err
	}
	// Before anything is stopped.
	if err := m.disksWhole("restart", rec, m.d.Layout.VM(rec.ID)); err != nil {
		return api.Operation{}, err
	}
	return m.begin(ctx, kindRestart, verbRestart, rec, verbParams{Ref: ref})
}

func (m *Manager) doStart(ctx context.Context, op *operation.Op, p verbParams) error {
	h, err := m.hold(ctx, op.ID(), verbStart, p.ID, api.StatusStarting)
	if err != nil {
		return err
	}
	defer h.mc.release()
	defer h.leave()
	if h.verdict == nothing {
		h.leave()
		return m.result(ctx, op, p.ID, op.Kind() == kindRestart)
	}
	rec, _, err := m.boot(ctx, h.mc, h.rec, op, nil)
	if err != nil {
		if leaving(ctx) {
			return err // the guest boots on, and the next daemon adopts it
		}
		return m.bootFailed(ctx, h.mc, rec, err)
	}
	h.leave()
	v := m.view(rec)
	v.Changed = true
	return op.SetResult(v)
}

package vm

import (
	"context"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
)

// The kinds of operations.
const (
	kindCreate  = "vm.create"
	kindStart   = "vm.start"
	kindStop    = "vm.stop"
	kindRestart = "vm.restart"
	kindDelete  = "vm.delete"
	kindSet     = "vm.set"
)

// verbParams is what the journal of a verb on an existing VM keeps.
type verbParams struct {
	ID        string     `json:"id"`
	Ref       string     `json:"ref"`
	TimeoutMS int64      `json:"timeout_ms,omitempty"`
	Force     bool       `json:"force,omitempty"`
	Set       *api.SetVM `json:"set,omitempty"`
}

// register declares what becomes of each kind when the daemon died half-way.
// Recover has adopted the machines that run by the time this applies.
func (m *Manager) register() {
	r := m.d.Operations
	one := func(name string, do func(context.Context, *operation.Op, verbParams) error) func(*operation.Op) ([]operation.Step, error) {
		return func(*operation.Op) ([]operation.Step, error) {
			return []operation.Step{{Name: name, Do: verbStep(do)}}, nil
		}
	}
	r.Register(operation.Kind{Name: kindCreate, OnCrash: operation.Undo, Steps: m.createSteps})
	r.Register(operation.Kind{Name: kindStart, OnCrash: operation.Fail, Steps: one("start", m.doStart)})
	r.Register(operation.Kind{Name: kindStop, OnCrash: operation.Resume, Steps: one("stop", m.doStop)})
	r.Register(operation.Kind{Name: kindDelete, OnCrash: operation.Resume, Steps: one("delete", m.doDelete)})
	r.Register(operation.Kind{Name: kindSet, OnCrash: operation.Resume, Steps: m.setSteps})
	r.Register(operation.Kind{Name: kindRestart, OnCrash: operation.Resume, Steps: func(*operation.Op) ([]operation.Step, error) {
		return []operation.Step{{Name: "stop", Do: verbStep(m.doStop)}, {Name: "start", Do: verbStep(m.doStart)}}, nil
	}})
}

func verbStep(do func(context.Context, *operation.Op, verbParams) error) func(context.Context, *operation.Op) error {
	return func(ctx context.Context, op *operation.Op) error {
		var p verbParams
		if err := op.Params(&p); err != nil {
			return err
		}
		return do(ctx, op, p)
	}
}

// begin passes the gate and begins the operation: a new one where there is
// something to do, the one under way where it does the same, a finished one
// where nothing is left to do.
func (m *Manager) begin(ctx context.Context, kind string, v verb, rec store.VM, p verbParams) (api.Operation, error) {
	verdict, err := gate(v, rec.Name, m.status(rec))
	if err != nil {
		return api.Operation{}, err
	}
	p.ID = rec.ID
	switch verdict {
	case nothing:
		return m.d.Operations.Finished(ctx, kind, rec.ID, m.view(rec))
	case join:
		if id := m.underway(rec.ID); id != "" {
			return m.d.Operations.Get(ctx, id)
		}
	case preempt:
		if err := m.preempt(ctx, rec.ID); err != nil {
			return api.Operation{}, err
		}
	}
	op, err := m.d.Operations.Begin(ctx, kind, rec.ID, p)
	if err != nil {
		return api.Operation{}, err
	}
	return op.Snapshot(), nil
}

// underway is the operation that is busy with the machine; empty when none is.
func (m *Manager) underway(id string) string {
	mc := m.machine(id)
	mc.mu.Lock()
	defer mc.mu.Unlock()
	return mc.op
}

// preempt cancels what is under way on the machine and waits for its end.
func (m *Manager) preempt(ctx context.Context, id string) error {
	op := m.underway(id)
	if op == "" {
		return nil
	}
	if err := m.cancel(op); err != nil {
		return err
	}
	_, err := m.d.Operations.Wait(ctx, op)
	if api.KindOf(err) == api.KindNotFound {
		return nil
	}
	return err
}

// cancel asks an operation to stop; one that has ended is fine.
func (m *Manager) cancel(op string) error {
	err := m.d.Operations.Cancel(op)
	if k := api.KindOf(err); k == api.KindNotFound || k == api.KindBadState {
		return nil
	}
	return err
}

// result puts the VM as it is now into the operation.
func (m *Manager) result(ctx context.Context, op *operation.Op, id string, changed bool) error {
	rec, err := m.d.Store.VM(ctx, id)
	if err != nil {
		return err
	}
	v := m.view(rec)
	v.Changed = changed
	return op.SetResult(v)
}

// held is a machine under its lock, with the gate passed.
type held struct {
	mc      *machine
	rec     store.VM
	verdict verdict
	leave   func() // ends the phase
}

// done ends the phase and gives the lock back.
func (h *held) done() {
	h.leave()
	h.mc.release()
}

// hold takes the machine's lock and passes the gate again, now for good: what
// was true at the door may have changed while waiting for the lock.
func (m *Manager) hold(ctx context.Context, op string, v verb, id string, phase api.Status) (*held, error) {
	h := &held{mc: m.machine(id)}
	err := h.mc.acquire(ctx)
	if err != nil {
		return nil, err
	}
	h.rec, err = m.record(ctx, id)
	if err == nil {
		h.verdict, err = gate(v, h.rec.Name, m.status(h.rec))
	}
	if err != nil {
		h.mc.release()
		if api.KindOf(err) == api.KindNotFound {
			m.forget(h.mc)
		}
		return nil, err
	}
	h.leave = h.mc.enter(phase, op)
	return h, nil
}

// both joins two errors into one line; the first gives kind and hint.
func both(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	e := *api.AsError(a)
	e.Message += "; " + b.Error()
	return &e
}

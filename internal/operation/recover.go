package operation

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// noteInterrupted is the note that tells an operation undone because the daemon
// died from one undone because it failed.
const noteInterrupted = "$interrupted"

// Recover takes up what an earlier daemon left: each operation journalled as
// running is resumed, undone or failed, as its kind says. It is called once,
// after all kinds are registered and before anything begins. The work goes on in
// the background when it returns; Running and Wait tell of it.
func (r *Registry) Recover(ctx context.Context) error {
	recs, err := r.db.Operations(ctx)
	if err != nil {
		return err
	}
	for _, rec := range recs {
		if rec.Status != api.OperationRunning {
			continue
		}
		if err := r.takeUp(ctx, rec); err != nil {
			return err
		}
	}
	r.trim(ctx)
	return nil
}

func (r *Registry) takeUp(ctx context.Context, rec store.Operation) error {
	op := r.newOp(rec)
	op.again = true
	if len(rec.Notes) > 0 {
		if err := json.Unmarshal(rec.Notes, &op.notes); err != nil {
			return r.interrupt(ctx, op, api.Errorf(api.KindInternal, "cannot read its notes: %w", err))
		}
	}
	r.mu.Lock()
	kind, ok := r.kinds[rec.Kind]
	r.mu.Unlock()
	if !ok {
		return r.interrupt(ctx, op, api.Errorf(api.KindUnsupported, "this banger knows no operation %s", rec.Kind))
	}
	steps, err := kind.Steps(op)
	if err != nil {
		return r.interrupt(ctx, op, err)
	}
	fits := op.fit(steps)
	switch {
	case kind.OnCrash == Fail:
		return r.interrupt(ctx, op, nil)
	case rec.Error != nil: // it was being undone
	case kind.OnCrash == Undo || !fits:
		op.rec.Error = op.cutShort(nil)
		op.notes[noteInterrupted] = json.RawMessage("true")
		if err := op.save(ctx); err != nil {
			return err
		}
	}
	if err := r.admit(op); err != nil {
		return err
	}
	r.log.InfoContext(ctx, "operation taken up", "operation", rec.ID, "kind", rec.Kind, "target", rec.Target, "undo", op.rec.Error != nil)
	op.publish()
	go r.run(op)
	return nil
}

// interrupt ends op without touching anything it did.
func (r *Registry) interrupt(ctx context.Context, op *Op, cause error) error {
	at := r.now().UTC()
	op.rec.Status, op.rec.FinishedAt = api.OperationInterrupted, &at
	if op.rec.Error == nil {
		op.rec.Error = op.cutShort(cause)
	}
	if err := op.save(ctx); err != nil {
		return err
	}
	r.log.WarnContext(ctx, "operation interrupted", "operation", op.rec.ID, "kind", op.rec.Kind, "target", op.rec.Target, "error", op.rec.Error)
	op.publish()
	op.cancel(nil)
	return nil
}

// cutShort says that the daemon's end cut the operation off, and where.
func (op *Op) cutShort(cause error) *api.Error {
	at := "its beginning"
	for _, s := range op.rec.Steps {
		if s.Status != stepPending {
			at = s.Name
		}
	}
	e := api.Errorf(api.KindUnavailable, "the daemon stopped while operation %s was at %q", op.rec.ID, at)
	if cause != nil {
		e = api.Errorf(api.KindOf(cause), "%s: %w", e.Message, cause)
	}
	e = e.WithHint("banger operation show %s", op.rec.ID)
	e.OperationID, e.Retryable = op.rec.ID, cause == nil
	return e
}

// fit sets op's steps to those journalled, and reports whether these are the
// ones its kind has today. A step that is gone cannot be undone, and says so.
func (op *Op) fit(today []Step) bool {
	fits := len(today) == len(op.rec.Steps)
	for i, s := range op.rec.Steps {
		fits = fits && today[i].Name == s.Name
		at := slices.IndexFunc(today, func(t Step) bool { return t.Name == s.Name })
		if at >= 0 {
			op.steps = append(op.steps, today[at])
			continue
		}
		op.steps = append(op.steps, Step{Name: s.Name, Undo: func(context.Context, *Op) error {
			return api.Errorf(api.KindUnsupported, "this banger knows no step %q of %s", s.Name, op.rec.Kind)
		}})
	}
	return fits
}

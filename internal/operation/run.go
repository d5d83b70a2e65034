package operation

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/bangervm/banger/api"
)

// run carries an operation, whose journal says where it stands, to its end.
func (r *Registry) run(op *Op) {
	defer r.wg.Done()
	ended := r.advance(op)
	// finish comes before forget: who finds it live can wait for it, who does
	// not finds its end in the journal.
	op.finish()
	if !ended {
		return
	}
	r.forget(op)
	r.countEnd(context.WithoutCancel(op.ctx))
}

// advance runs the steps, or their undos, as the journal says, and reports
// whether the operation's end is journalled.
func (r *Registry) advance(op *Op) bool {
	if cause := op.failure(); cause != nil {
		return r.undo(op)
	}
	for i := range op.steps {
		if op.status(i) == stepDone {
			continue
		}
		if op.status(i) != stepRunning { // its beginning is journalled with the end of the one before
			op.startStep(i)
			if err := op.save(context.Background()); err != nil {
				return r.fail(op, i, err)
			}
			op.publish()
		}
		err := context.Cause(op.ctx)
		if err == nil {
			err = r.do(op, i)
		}
		if err != nil && errors.Is(context.Cause(op.ctx), errClosing) {
			return false // it stays journalled as running
		}
		if err != nil {
			return r.fail(op, i, err)
		}
		op.endStep(i, stepDone)
	}
	return r.end(op, api.OperationSucceeded)
}

func (r *Registry) do(op *Op, i int) (err error) {
	defer r.rescue(op, &err)
	if op.steps[i].Do == nil {
		return nil
	}
	return op.steps[i].Do(op.ctx, op)
}

// rescue turns a panic of a step into its error: one broken step must not take
// the daemon along.
func (r *Registry) rescue(op *Op, err *error) {
	if p := recover(); p != nil {
		r.log.Error("step panicked", "operation", op.rec.ID, "kind", op.rec.Kind, "panic", p, "stack", string(debug.Stack()))
		*err = api.Errorf(api.KindInternal, "the step panicked: %v", p)
	}
}

// cancelled is the error of an operation that was cancelled, in words that its
// caller has seen.
func (op *Op) cancelled() error {
	op.mu.Lock()
	defer op.mu.Unlock()
	what, at := op.rec.Kind, ""
	if op.rec.Target != "" {
		what += " of " + op.rec.Target
	}
	if op.rec.Stage != "" {
		at = " while it was " + op.rec.Stage
	}
	return api.Errorf(api.KindCancelled, "%s was cancelled%s", what, at)
}

// fail journals why step i ended the operation, then undoes.
func (r *Registry) fail(op *Op, i int, cause error) bool {
	if errors.Is(context.Cause(op.ctx), errCancelled) {
		cause = op.cancelled()
	}
	e := *api.AsError(cause)
	e.OperationID = op.rec.ID
	op.endStep(i, stepFailed)
	op.mu.Lock()
	op.rec.Error = &e
	op.mu.Unlock()
	if err := op.save(context.Background()); err != nil {
		// Undoing goes on: after a crash the step is still journalled as running,
		// and undone again.
		r.log.Error("operation's failure not journalled", "operation", op.rec.ID, "error", err)
	}
	op.publish()
	return r.undo(op)
}

// undo takes back, last first, every step that began and is not undone yet.
func (r *Registry) undo(op *Op) bool {
	cause := *op.failure()
	var failed []error
	for i := len(op.steps) - 1; i >= 0; i-- {
		switch op.status(i) {
		case stepPending, stepUndone:
			continue
		}
		if op.steps[i].Undo == nil {
			op.endStep(i, stepUndone)
			continue
		}
		if r.hard.Err() != nil {
			return false
		}
		err := r.takeBack(op, i)
		if err != nil && r.hard.Err() != nil {
			return false // the next daemon undoes it
		}
		if err != nil {
			op.endStep(i, stepUndoFailed)
			failed = append(failed, fmt.Errorf("cannot undo %q: %w", op.steps[i].Name, err))
			r.log.Error("step not undone", "operation", op.rec.ID, "kind", op.rec.Kind, "step", op.steps[i].Name, "error", err)
		} else {
			op.endStep(i, stepUndone)
		}
		if err := op.save(context.Background()); err != nil {
			r.log.Error("undone step not journalled", "operation", op.rec.ID, "error", err)
		}
		op.publish()
	}
	status := api.OperationFailed
	switch {
	case len(failed) > 0:
		cause.Message = errors.Join(append([]error{&cause}, failed...)...).Error()
		cause.Retryable = false
		if cause.Kind == api.KindCancelled {
			cause.Kind = api.KindOf(failed[0])
		}
		op.mu.Lock()
		op.rec.Error = &cause
		op.mu.Unlock()
	case cause.Kind == api.KindCancelled:
		status = api.OperationCancelled
	case op.Get(noteInterrupted, new(bool)):
		status = api.OperationInterrupted
	}
	return r.end(op, status)
}

func (r *Registry) takeBack(op *Op, i int) (err error) {
	defer r.rescue(op, &err)
	ctx, cancel := context.WithTimeout(r.hard, undoTimeout)
	defer cancel()
	return op.steps[i].Undo(ctx, op)
}

// end journals and tells the end, and reports whether it could be journalled.
func (r *Registry) end(op *Op, status api.OperationStatus) bool {
	at := r.now().UTC()
	op.mu.Lock()
	op.rec.Status, op.rec.FinishedAt = status, &at
	op.mu.Unlock()
	err := op.save(context.Background())
	if err != nil {
		// It stays in memory as what it is; in the journal it is running, so the
		// next daemon looks after it once more.
		r.log.Error("operation's end not journalled", "operation", op.rec.ID, "status", status, "error", err)
	}
	op.publish()
	return err == nil
}

func (op *Op) status(i int) string {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.rec.Steps[i].Status
}

// failure is why the operation is being undone, or nil.
func (op *Op) failure() *api.Error {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.rec.Error
}

func (op *Op) startStep(i int) {
	at := op.r.now().UTC()
	op.mu.Lock()
	defer op.mu.Unlock()
	op.rec.Steps[i].Status, op.rec.Steps[i].StartedAt = stepRunning, &at
}

// endStep notes how a step ended; when it is done, the next one's beginning
// goes into the same write of the journal.
func (op *Op) endStep(i int, status string) {
	at := op.r.now().UTC()
	op.mu.Lock()
	defer op.mu.Unlock()
	op.rec.Steps[i].Status, op.rec.Steps[i].FinishedAt = status, &at
}

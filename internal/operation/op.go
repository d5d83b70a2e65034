package operation

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// The statuses of a step. A running one may have had any part of its effect.
const (
	stepPending    = "pending"
	stepRunning    = "running"
	stepDone       = "done"
	stepFailed     = "failed"
	stepUndone     = "undone"
	stepUndoFailed = "undo-failed"
)

// progressEvery is how often progress within a stage is passed on.
const progressEvery = 100 * time.Millisecond

// Op is one operation under way. Its methods may be called from several
// goroutines.
type Op struct {
	r      *Registry
	steps  []Step
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the operation's goroutine has ended
	again  bool          // an earlier daemon began it

	mu       sync.Mutex
	rec      store.Operation
	notes    map[string]json.RawMessage
	progress api.Progress

	saving sync.Mutex // held over one write of the journal, so that the newest comes last

	telling  sync.Mutex // held over one publication, so that all see the same order
	watchers map[chan api.Operation]func() bool
	over     bool
	told     time.Time
}

// watchBuffer is how many changes a watcher may be behind before it misses some.
const watchBuffer = 16

// errCancelled is the cause of an operation's context ending by Cancel.
var errCancelled = api.Errorf(api.KindCancelled, "cancelled")

func (r *Registry) newOp(rec store.Operation) *Op {
	op := &Op{r: r, rec: rec, done: make(chan struct{}), notes: map[string]json.RawMessage{},
		watchers: map[chan api.Operation]func() bool{}}
	op.ctx, op.cancel = context.WithCancelCause(r.ctx)
	return op
}

// ID of the operation.
func (op *Op) ID() string { return op.rec.ID }

// Kind of the operation.
func (op *Op) Kind() string { return op.rec.Kind }

// TakenUp says whether an earlier daemon began the operation: what is done
// already may be its doing.
func (op *Op) TakenUp() bool { return op.again }

// Target of the operation, as handed to Begin.
func (op *Op) Target() string { return op.rec.Target }

// Params reads the parameters handed to Begin into v.
func (op *Op) Params(v any) error {
	if err := json.Unmarshal(op.rec.Params, v); err != nil {
		return api.Errorf(api.KindInternal, "cannot read the parameters of operation %s: %w", op.rec.ID, err)
	}
	return nil
}

// Set notes a value that later steps and undos need. When it returns nil the
// note is on the disk: note what you are about to make before you make it.
func (op *Op) Set(key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot note %s of operation %s: %w", key, op.rec.ID, err)
	}
	op.mu.Lock()
	old, had := op.notes[key]
	op.notes[key] = data
	op.mu.Unlock()
	if had && bytes.Equal(old, data) {
		return nil
	}
	return op.save(context.Background())
}

// Get reads a note into v and says whether there was one that fits.
func (op *Op) Get(key string, v any) bool {
	op.mu.Lock()
	data, ok := op.notes[key]
	op.mu.Unlock()
	return ok && json.Unmarshal(data, v) == nil
}

// Stage says, for people, what happens now; progress begins anew.
func (op *Op) Stage(text string) {
	op.mu.Lock()
	same := op.rec.Stage == text && op.progress == api.Progress{}
	op.rec.Stage, op.progress = text, api.Progress{}
	op.mu.Unlock()
	if !same {
		op.publish()
	}
}

// Progress counts within the stage; total is 0 when unknown, unit is bytes,
// items or empty. It may be called as often as one likes.
func (op *Op) Progress(done, total int64, unit string) {
	op.mu.Lock()
	op.progress = api.Progress{Done: done, Total: total, Unit: unit}
	due := op.r.now().Sub(op.told) >= progressEvery || done == total
	op.mu.Unlock()
	if due {
		op.publish()
	}
}

// SetResult sets what the operation made; it is kept when it succeeds.
func (op *Op) SetResult(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot keep the result of operation %s: %w", op.rec.ID, err)
	}
	op.mu.Lock()
	op.rec.Result = data
	op.mu.Unlock()
	return nil
}

// Cancel asks the operation to stop and undo; it returns at once.
func (op *Op) Cancel() { op.cancel(errCancelled) }

// Done is closed when the operation has ended, or stopped for the next daemon.
func (op *Op) Done() <-chan struct{} { return op.done }

// Snapshot is the operation as it is now.
func (op *Op) Snapshot() api.Operation {
	op.mu.Lock()
	defer op.mu.Unlock()
	return toAPI(op.record(), op.progress)
}

// record copies what the journal holds. mu is held.
func (op *Op) record() store.Operation {
	rec := op.rec
	rec.Steps = slices.Clone(rec.Steps)
	return rec
}

// save writes the journal.
func (op *Op) save(ctx context.Context) error {
	op.saving.Lock()
	defer op.saving.Unlock()
	op.mu.Lock()
	rec := op.record()
	notes := maps.Clone(op.notes)
	op.mu.Unlock()
	if len(notes) > 0 {
		data, err := json.Marshal(notes)
		if err != nil {
			return api.Errorf(api.KindInternal, "cannot journal operation %s: %w", rec.ID, err)
		}
		rec.Notes = data
	}
	return op.r.db.SaveOperation(ctx, rec)
}

// publish tells everybody how the operation is now.
func (op *Op) publish() {
	op.telling.Lock()
	defer op.telling.Unlock()
	o := op.Snapshot()
	op.mu.Lock()
	op.told = op.r.now()
	op.mu.Unlock()
	for c := range op.watchers {
		tell(c, o)
	}
	if op.r.notify != nil {
		op.r.notify(o)
	}
}

// tell hands o to a watcher; one that is too far behind loses its oldest.
// telling is held, so nobody else sends.
func tell(c chan api.Operation, o api.Operation) {
	for {
		select {
		case c <- o:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}

func (op *Op) watch(ctx context.Context) <-chan api.Operation {
	c := make(chan api.Operation, watchBuffer)
	op.telling.Lock()
	defer op.telling.Unlock()
	c <- op.Snapshot()
	if op.over {
		close(c)
		return c
	}
	op.watchers[c] = context.AfterFunc(ctx, func() {
		op.telling.Lock()
		defer op.telling.Unlock()
		if _, ok := op.watchers[c]; ok {
			delete(op.watchers, c)
			close(c)
		}
	})
	return c
}

// finish lets all watchers and waiters go.
func (op *Op) finish() {
	op.telling.Lock()
	op.over = true
	for c, stop := range op.watchers {
		stop()
		delete(op.watchers, c)
		close(c)
	}
	op.telling.Unlock()
	op.cancel(nil)
	close(op.done)
}

func toAPI(rec store.Operation, p api.Progress) api.Operation {
	o := api.Operation{ID: rec.ID, Kind: rec.Kind, Target: rec.Target, Status: rec.Status, Stage: rec.Stage, Progress: p,
		Steps: rec.Steps, CreatedAt: rec.CreatedAt, FinishedAt: rec.FinishedAt, Error: rec.Error}
	if o.Steps == nil {
		o.Steps = []api.OperationStep{}
	}
	if rec.Status == api.OperationSucceeded {
		o.Result = rec.Result
	}
	return o
}

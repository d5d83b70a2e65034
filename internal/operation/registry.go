package operation

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// Journal is where operations are written down. *store.DB is one.
type Journal interface {
	// SaveOperation returns once the record is on the disk.
	SaveOperation(ctx context.Context, o store.Operation) error
	Operation(ctx context.Context, id string) (store.Operation, error)
	Operations(ctx context.Context) ([]store.Operation, error)
	DeleteOperations(ctx context.Context, ids []string) error
}

// OnCrash says what becomes of an operation that the daemon's death cut off.
type OnCrash string

// The choices.
const (
	// Resume runs the step that was under way again, then the rest.
	Resume OnCrash = "resume"
	// Undo undoes the step that was under way and all before it; the operation
	// is then interrupted.
	Undo OnCrash = "undo"
	// Fail leaves everything as it is; the operation is then interrupted.
	Fail OnCrash = "fail"
)

// Step is one part of an operation.
type Step struct {
	Name string
	// Do does it. It may run again after a crash, and must end soon after its
	// context does.
	Do func(ctx context.Context, op *Op) error
	// Undo takes back what Do did, or part of it, or nothing. It may be nil, and
	// it may run again after a crash. Its context is not the operation's.
	Undo func(ctx context.Context, op *Op) error
}

// Kind is one sort of operation.
type Kind struct {
	Name    string
	OnCrash OnCrash
	// Steps lists the steps of one operation from its parameters and notes. It
	// is called once at the beginning and once after each crash; it has no side
	// effect and gives the same names each time.
	Steps func(op *Op) ([]Step, error)
}

// Limits of what is kept of finished operations, and of an undo's time.
const (
	keepFor     = 24 * time.Hour
	keepCount   = 1000
	trimEvery   = 50 // operations ended
	undoTimeout = 2 * time.Minute
)

// Registry runs operations and remembers them.
type Registry struct {
	db     Journal
	notify func(api.Operation)
	now    func() time.Time
	log    *slog.Logger

	ctx  context.Context // of all operations; ended by Close
	stop context.CancelCauseFunc
	hard context.Context // of all undos; ended when Close loses patience
	kill context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	kinds  map[string]Kind
	live   map[string]*Op
	ended  int
}

// errClosing is the cause of an operation's context ending with the daemon.
var errClosing = errors.New("the daemon is stopping")

// New makes a registry. notify, which may be nil, is told of every change, in
// order for each operation; it must not block and must not call the registry.
// The caller registers kinds, then calls Recover, and Close at the end.
func New(db Journal, notify func(api.Operation), now func() time.Time, log *slog.Logger) *Registry {
	r := &Registry{db: db, notify: notify, now: now, log: log, kinds: map[string]Kind{}, live: map[string]*Op{}}
	r.ctx, r.stop = context.WithCancelCause(context.Background())
	r.hard, r.kill = context.WithCancel(context.Background())
	return r
}

// Register makes a kind known. To register one twice is a programming error.
func (r *Registry) Register(k Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.kinds[k.Name]; ok {
		panic("operation kind registered twice: " + k.Name)
	}
	r.kinds[k.Name] = k
}

// Begin journals a new operation and starts it. It runs on when ctx ends: only
// Cancel and Close stop it. params is JSON for Op.Params.
func (r *Registry) Begin(ctx context.Context, kind, target string, params any) (*Op, error) {
	r.mu.Lock()
	k, ok := r.kinds[kind]
	r.mu.Unlock()
	if !ok {
		return nil, api.Errorf(api.KindInternal, "cannot begin operation %s: no such kind", kind)
	}
	data, err := json.Marshal(params)
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot begin operation %s: %w", kind, err)
	}
	op := r.newOp(store.Operation{ID: newID(), Kind: kind, Target: target, Status: api.OperationRunning,
		Params: data, CreatedAt: r.now().UTC()})
	if op.steps, err = k.Steps(op); err != nil {
		return nil, err
	}
	for _, s := range op.steps {
		op.rec.Steps = append(op.rec.Steps, api.OperationStep{Name: s.Name, Status: stepPending})
	}
	if len(op.steps) > 0 {
		op.startStep(0)
	}
	if err := r.admit(op); err != nil {
		return nil, err
	}
	if err := op.save(ctx); err != nil {
		r.forget(op)
		op.finish()
		r.wg.Done()
		return nil, err
	}
	op.publish()
	go r.run(op)
	return op, nil
}

// Finished records an operation that had nothing to do, as succeeded.
func (r *Registry) Finished(ctx context.Context, kind, target string, result any) (api.Operation, error) {
	data, err := json.Marshal(result)
	if err != nil {
		return api.Operation{}, api.Errorf(api.KindInternal, "cannot record operation %s: %w", kind, err)
	}
	at := r.now().UTC()
	op := r.newOp(store.Operation{ID: newID(), Kind: kind, Target: target, Status: api.OperationSucceeded,
		CreatedAt: at, FinishedAt: &at, Result: data})
	op.cancel(nil)
	if err := op.save(ctx); err != nil {
		return api.Operation{}, err
	}
	op.publish()
	r.countEnd(ctx)
	return op.Snapshot(), nil
}

// admit makes op known and counts its goroutine, unless the registry is closed.
func (r *Registry) admit(op *Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		op.cancel(errClosing)
		return api.Errorf(api.KindUnavailable, "cannot begin operation %s: %w", op.rec.Kind, errClosing)
	}
	r.live[op.rec.ID] = op
	r.wg.Add(1)
	return nil
}

func (r *Registry) forget(op *Op) {
	r.mu.Lock()
	delete(r.live, op.rec.ID)
	r.mu.Unlock()
}

func (r *Registry) liveOp(id string) *Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[id]
}

// Get gives an operation as it is now.
func (r *Registry) Get(ctx context.Context, id string) (api.Operation, error) {
	if op := r.liveOp(id); op != nil {
		return op.Snapshot(), nil
	}
	rec, err := r.db.Operation(ctx, id)
	if err != nil {
		return api.Operation{}, api.AsError(err).WithHint("banger operation list")
	}
	return toAPI(rec, api.Progress{}), nil
}

// Filter says which operations are wanted; empty fields want all.
type Filter struct {
	Kind, Target string
	Status       api.OperationStatus
}

func (f Filter) wants(o api.Operation) bool {
	return (f.Kind == "" || f.Kind == o.Kind) && (f.Target == "" || f.Target == o.Target) && (f.Status == "" || f.Status == o.Status)
}

// List gives the operations that pass the filter, oldest first.
func (r *Registry) List(ctx context.Context, f Filter) ([]api.Operation, error) {
	// The live ones are noted first: one that ends while the journal is read
	// still tells its end.
	r.mu.Lock()
	live := maps.Clone(r.live)
	r.mu.Unlock()
	recs, err := r.db.Operations(ctx)
	if err != nil {
		return nil, err
	}
	list := []api.Operation{}
	for _, rec := range recs {
		o := toAPI(rec, api.Progress{})
		if op := live[rec.ID]; op != nil {
			o = op.Snapshot()
		}
		if f.wants(o) {
			list = append(list, o)
		}
	}
	return list, nil
}

// Running gives the operations under way that pass the filter, without a look
// into the journal, oldest first.
func (r *Registry) Running(f Filter) []api.Operation {
	r.mu.Lock()
	ops := make([]*Op, 0, len(r.live))
	for _, op := range r.live {
		ops = append(ops, op)
	}
	r.mu.Unlock()
	list := []api.Operation{}
	for _, op := range ops {
		if o := op.Snapshot(); o.Status == api.OperationRunning && f.wants(o) {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b api.Operation) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return list
}

// Wait waits for the end of an operation. The error is about the waiting: an
// operation that failed is no error here, see its Error.
func (r *Registry) Wait(ctx context.Context, id string) (api.Operation, error) {
	op := r.liveOp(id)
	if op == nil {
		return r.Get(ctx, id)
	}
	select {
	case <-op.done:
	case <-ctx.Done():
		kind := api.KindCancelled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			kind = api.KindTimeout
		}
		e := api.Errorf(kind, "cannot wait any longer for operation %s: %w", id, ctx.Err()).WithHint("banger operation show %s", id)
		e.OperationID = id
		return op.Snapshot(), e
	}
	o := op.Snapshot()
	if o.Status == api.OperationRunning {
		e := api.Errorf(api.KindUnavailable, "cannot wait for operation %s: %w; the next daemon goes on with it", id, errClosing).
			WithHint("banger operation wait %s", id)
		e.OperationID = id
		return o, e
	}
	return o, nil
}

// Watch tells of an operation's changes: how it is now comes first, its final
// state last; then the channel is closed. A slow reader misses some in between.
// The channel is also closed when ctx ends or the registry is closed, and at
// once when there is no such operation, which Get tells from the rest.
func (r *Registry) Watch(ctx context.Context, id string) <-chan api.Operation {
	if op := r.liveOp(id); op != nil {
		return op.watch(ctx)
	}
	c := make(chan api.Operation, 1)
	if o, err := r.Get(ctx, id); err == nil {
		c <- o
	}
	close(c)
	return c
}

// Cancel asks a running operation to stop; it is then undone, and Wait waits for
// that. It is of kind bad-state when the operation has ended already.
func (r *Registry) Cancel(id string) error {
	if op := r.liveOp(id); op != nil && op.Snapshot().FinishedAt == nil {
		op.Cancel()
		return nil
	}
	o, err := r.Get(context.Background(), id)
	if err != nil {
		return err
	}
	return api.Errorf(api.KindBadState, "cannot cancel operation %s: it has ended: %s", id, o.Status).WithHint("banger operation show %s", id)
}

// Prune forgets all finished operations and gives what it forgot. One that
// could not be undone goes too: whoever prunes has seen it.
func (r *Registry) Prune(ctx context.Context) ([]api.Operation, error) {
	list, err := r.List(ctx, Filter{})
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(o api.Operation) bool {
		return o.Status == api.OperationRunning || r.liveOp(o.ID) != nil
	})
	return list, r.db.DeleteOperations(ctx, ids(list))
}

// countEnd trims once in a while.
func (r *Registry) countEnd(ctx context.Context) {
	r.mu.Lock()
	r.ended++
	due := r.ended%trimEvery == 0
	r.mu.Unlock()
	if due {
		r.trim(ctx)
	}
}

// trim forgets finished operations beyond the limits, but none whose undo failed.
func (r *Registry) trim(ctx context.Context) {
	list, err := r.List(ctx, Filter{})
	if err != nil {
		r.log.WarnContext(ctx, "finished operations not trimmed", "error", err)
		return
	}
	oldest := r.now().Add(-keepFor)
	kept := 0
	slices.Reverse(list) // newest first
	list = slices.DeleteFunc(list, func(o api.Operation) bool {
		if o.Status == api.OperationRunning || r.liveOp(o.ID) != nil || undoFailed(o) {
			return true
		}
		kept++
		return kept <= keepCount && (o.FinishedAt == nil || o.FinishedAt.After(oldest))
	})
	if err := r.db.DeleteOperations(ctx, ids(list)); err != nil {
		r.log.WarnContext(ctx, "finished operations not trimmed", "error", err)
	}
}

func ids(list []api.Operation) []string {
	ids := make([]string, len(list))
	for i, o := range list {
		ids[i] = o.ID
	}
	return ids
}

func undoFailed(o api.Operation) bool {
	return slices.ContainsFunc(o.Steps, func(s api.OperationStep) bool { return s.Status == stepUndoFailed })
}

// Close stops the running operations where they are, without undoing them: they
// stay journalled as running, for the next Recover. An undo under way is waited
// for as long as ctx allows. After it nothing can begin.
func (r *Registry) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop(errClosing)
	gone := make(chan struct{})
	go func() { r.wg.Wait(); close(gone) }()
	defer r.kill()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	r.kill()
	// One that heeds no context is left behind; the process is about to end.
	select {
	case <-gone:
		return nil
	case <-time.After(time.Second):
		return api.Errorf(api.KindTimeout, "cannot stop all operations: %w", ctx.Err())
	}
}

func newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

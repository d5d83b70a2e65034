package pull

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"sync"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/operation"
)

// Policies of Resolve.
const (
	Missing = "missing" // pull what is not here; the default
	Always  = "always"  // pull, also what is here
	Never   = "never"
)

// Puller finds, makes, publishes, deletes and lists the things of one noun.
type Puller[R, V any] struct {
	noun    Noun[R, V]
	staging string
	ops     *operation.Registry
	log     *slog.Logger

	begin   sync.Mutex // held while looking for a job to join and beginning one: milliseconds
	begun   []begun    // guarded by begin
	flights flights
	publish sync.Mutex // held while publishing or deleting: milliseconds
}

// begun is a job under way.
type begun struct {
	job Job
	op  *operation.Op
}

// New makes a puller and registers its kinds of operation. staging is the folder
// things are made in, on the file system of their final folders.
func New[R, V any](noun Noun[R, V], staging string, ops *operation.Registry, log *slog.Logger) *Puller[R, V] {
	p := &Puller[R, V]{noun: noun, staging: staging, ops: ops, log: log}
	for _, kind := range noun.Kinds {
		ops.Register(operation.Kind{Name: kind, OnCrash: operation.Undo, Steps: p.steps})
	}
	return p
}

// Resolve gives the thing called ref, pulling it as the policy allows and
// telling report, which may be nil, of the progress. Those who want the same
// thing share one pull. It belongs to the daemon: when ctx ends, only the
// waiting does.
func (p *Puller[R, V]) Resolve(ctx context.Context, ref, policy string, report Report) (R, error) {
	var none R
	switch policy {
	case "", Missing, Never:
		rec, err := p.Local(ctx, ref)
		switch {
		case err == nil:
			return rec, nil
		case api.KindOf(err) != api.KindNotFound:
			return none, err
		case policy == Never:
			return none, api.Errorf(api.KindNotFound, "cannot find %s %q: it is not here, and pulling is not allowed", p.noun.Name, ref).
				WithHint("banger %s pull %s", p.noun.Name, ref)
		}
	case Always:
	default:
		return none, api.Errorf(api.KindInvalid, "cannot pull %s %q: unknown policy %q (missing, always, never)", p.noun.Name, ref, policy).
			WithHint("banger vm run --pull missing")
	}
	job, err := p.noun.Known(ctx, ref)
	if err != nil {
		return none, err
	}
	job.Force = policy == Always
	for {
		op, err := p.join(ctx, job)
		if err != nil {
			return none, err
		}
		end, err := p.follow(ctx, op.ID(), report)
		switch {
		case err != nil:
			return none, err
		case end.Status == api.OperationSucceeded:
			return p.Local(ctx, job.Name)
		case end.Status == api.OperationCancelled && ctx.Err() == nil:
			// Somebody else cancelled it; we still want it.
			p.log.InfoContext(ctx, "pull cancelled by another, beginning anew", p.noun.Name, ref, "operation", op.ID())
		case end.Error != nil:
			return none, end.Error
		default:
			return none, api.Errorf(api.KindUnavailable, "cannot pull %s %q: the pull was %s", p.noun.Name, ref, end.Status).
				WithHint("banger operation show %s", op.ID())
		}
	}
}

// Local gives what is here under the exact name or id, and has its files. Only
// an error of kind not-found means that there is none.
func (p *Puller[R, V]) Local(ctx context.Context, ref string) (R, error) {
	rec, err := p.Find(ctx, ref)
	if err == nil {
		err = p.check(rec)
	}
	return rec, err
}

// Begin begins a job as an operation of its own, so that whoever cancels it
// cancels nobody else's. Jobs that make the same make it once: the others wait
// and find it here. What is here already is a success that changed nothing.
func (p *Puller[R, V]) Begin(ctx context.Context, job Job) (api.Operation, error) {
	p.begin.Lock()
	defer p.begin.Unlock()
	op, err := p.start(ctx, job)
	if err != nil {
		return api.Operation{}, err
	}
	return op.Snapshot(), nil
}

// join gives the operation that does the same job, beginning one if there is none.
func (p *Puller[R, V]) join(ctx context.Context, job Job) (*operation.Op, error) {
	p.begin.Lock()
	defer p.begin.Unlock()
	for _, b := range p.begun {
		if b.job.Name == job.Name && reflect.DeepEqual(b.job.Source, job.Source) && b.op.Snapshot().Status == api.OperationRunning {
			return b.op, nil
		}
	}
	return p.start(ctx, job)
}

// start begins a job. begin is held.
func (p *Puller[R, V]) start(ctx context.Context, job Job) (*operation.Op, error) {
	kind := job.Kind
	if kind == "" {
		kind = p.noun.Kinds[0]
	}
	op, err := p.ops.Begin(ctx, kind, job.Name, job)
	if err != nil {
		return nil, err
	}
	live := []begun{{job, op}}
	for _, b := range p.begun {
		select {
		case <-b.op.Done():
		default:
			live = append(live, b)
		}
	}
	p.begun = live
	return op, nil
}

// follow reports the progress of an operation and gives its end.
func (p *Puller[R, V]) follow(ctx context.Context, id string, report Report) (api.Operation, error) {
	if report != nil {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		for op := range p.ops.Watch(watching, id) {
			if op.Stage != "" {
				report(op.Stage, op.Progress)
			}
		}
	}
	return p.ops.Wait(ctx, id)
}

// Unknown is the error for a name that is neither here nor in the catalog, with
// the near names of both.
func (p *Puller[R, V]) Unknown(ctx context.Context, name string) *api.Error {
	err := api.Errorf(api.KindNotFound, "cannot find %s %q: it is neither here nor in the catalog", p.noun.Name, name).
		WithHint("banger %s catalog", p.noun.Name)
	// Near names are a courtesy: without some of them there are fewer.
	names, lerr := p.names(ctx)
	if lerr != nil {
		p.log.WarnContext(ctx, "no near names from the store", "error", lerr)
	}
	entries, cerr := p.noun.Catalog(ctx, false)
	if cerr != nil {
		p.log.WarnContext(ctx, "no near names from the catalog", "error", cerr)
	}
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if near := near(name, names); len(near) > 0 {
		err.Candidates = near
		err.Message += "; did you mean " + strings.Join(near, ", ") + "?"
	}
	return err
}

// stagingDir names the staging folder of an operation.
func (p *Puller[R, V]) stagingDir(op *operation.Op) string {
	return filepath.Join(p.staging, p.noun.Name+"-"+op.ID())
}

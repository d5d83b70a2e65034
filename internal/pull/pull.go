package pull

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
)

// Policies of Resolve.
const (
	Missing = "missing" // pull what is not here; the default
	Always  = "always"  // pull, also what is here
	Never   = "never"
)

// Report receives how far a pull is.
type Report = func(stage string, progress api.Progress)

// Noun says how the things of one noun are found, made and recorded. R is their
// durable record, V what a client sees of it. All functions may be called from
// several goroutines.
type Noun[R, V any] struct {
	Name string // image, kernel; the operation's kind is <name>.pull
	// Catalog lists what can be pulled; Local is left unset.
	Catalog func() []api.CatalogEntry
	// Make makes the files in dir, which exists and is empty, and gives the
	// record. tempDir is for debian.Options. What it leaves on an error is
	// removed.
	Make func(ctx context.Context, name, dir, tempDir string, report func(debian.Progress)) (R, error)
	// Check looks whether the files of a record are there and readable, and says
	// what about them is wrong; nothing when they are whole.
	Check func(rec R) (wrong string, err error)
	// Dir is the folder that the files of an id belong in.
	Dir func(id string) string

	// ID of a record, where its name is, and what tells its content from another.
	ID     func(R) string
	NameOf func(*R) *string
	Digest func(R) string
	// UsedID is the id of the thing that a VM was made from.
	UsedID func(store.VM) string
	View   func(rec R, usedBy []string, changed bool) V

	// The store: Insert fails with kind exists when the name or id is taken; of
	// the others only an error of kind not-found means that there is none.
	Insert       func(ctx context.Context, rec R) error
	Update       func(ctx context.Context, id string, change func(*R) error) (R, error)
	ByID, ByName func(ctx context.Context, ref string) (R, error)
	All          func(ctx context.Context) ([]R, error)
	Delete       func(ctx context.Context, id string) error
	VMs          func(ctx context.Context) ([]store.VM, error)
}

// Puller finds, pulls and lists the things of one noun.
type Puller[R, V any] struct {
	noun    Noun[R, V]
	staging string
	ops     *operation.Registry
	log     *slog.Logger

	begin   sync.Mutex // held while looking for a pull to join and beginning one: milliseconds
	publish sync.Mutex // held while publishing: milliseconds
}

// New makes a puller and registers its kind of operation. staging is the folder
// things are made in, on the file system of their final folders.
func New[R, V any](noun Noun[R, V], staging string, ops *operation.Registry, log *slog.Logger) *Puller[R, V] {
	p := &Puller[R, V]{noun: noun, staging: staging, ops: ops, log: log}
	ops.Register(operation.Kind{Name: p.kind(), OnCrash: operation.Undo, Steps: p.steps})
	return p
}

func (p *Puller[R, V]) kind() string { return p.noun.Name + ".pull" }

// params are those of the operation.
type params struct {
	Name string `json:"name"`
	// Force makes it anew though it is here; the name then moves to what was made.
	Force bool `json:"force,omitempty"`
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
	for {
		op, err := p.start(ctx, ref, policy == Always)
		if err != nil {
			return none, err
		}
		if op == "" { // it came while we looked
			return p.Local(ctx, ref)
		}
		end, err := p.follow(ctx, op, report)
		switch {
		case err != nil:
			return none, err
		case end.Status == api.OperationSucceeded:
			return p.Local(ctx, ref)
		case end.Status == api.OperationCancelled && ctx.Err() == nil:
			// Somebody else cancelled it; we still want it.
			p.log.InfoContext(ctx, "pull cancelled by another, beginning anew", p.noun.Name, ref, "operation", op)
		case end.Error != nil:
			return none, end.Error
		default:
			return none, api.Errorf(api.KindUnavailable, "cannot pull %s %q: the pull was %s", p.noun.Name, ref, end.Status).
				WithHint("banger operation show %s", op)
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

// Pull begins, or joins, the pull of a catalog name. What is here already is a
// success that changed nothing, unless force.
func (p *Puller[R, V]) Pull(ctx context.Context, name string, force bool) (api.Operation, error) {
	id, err := p.start(ctx, name, force)
	if err != nil {
		return api.Operation{}, err
	}
	if id != "" {
		return p.ops.Get(ctx, id)
	}
	rec, err := p.Local(ctx, name)
	if err != nil {
		return api.Operation{}, err
	}
	result, err := p.view(ctx, rec, false)
	if err != nil {
		return api.Operation{}, err
	}
	return p.ops.Finished(ctx, p.kind(), name, result)
}

// start gives the id of the pull of name under way, beginning one if there is
// none; an empty id means that the thing is here and need not be pulled.
func (p *Puller[R, V]) start(ctx context.Context, name string, force bool) (string, error) {
	p.begin.Lock()
	defer p.begin.Unlock()
	// In this order: a pull that has ended by the first look has published by
	// the second.
	if running := p.ops.Running(operation.Filter{Kind: p.kind(), Target: name}); len(running) > 0 {
		return running[0].ID, nil
	}
	if !force {
		_, err := p.Local(ctx, name)
		if err == nil {
			return "", nil
		}
		if api.KindOf(err) != api.KindNotFound {
			return "", err
		}
	}
	if err := p.known(ctx, name); err != nil {
		return "", err
	}
	op, err := p.ops.Begin(ctx, p.kind(), name, params{Name: name, Force: force})
	if err != nil {
		return "", err
	}
	return op.ID(), nil
}

// follow reports the progress of a pull and gives its end.
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

// known checks that the catalog has the name.
func (p *Puller[R, V]) known(ctx context.Context, name string) error {
	var names []string
	for _, e := range p.noun.Catalog() {
		if e.Name == name {
			return nil
		}
		names = append(names, e.Name)
	}
	err := api.Errorf(api.KindNotFound, "cannot find %s %q: it is neither here nor in the catalog", p.noun.Name, name).
		WithHint("banger %s catalog", p.noun.Name)
	// Near names are a courtesy: without the local ones there are fewer.
	local, lerr := p.names(ctx)
	if lerr != nil {
		p.log.WarnContext(ctx, "no near names from the store", "error", lerr)
	}
	if near := near(name, append(names, local...)); len(near) > 0 {
		err.Candidates = near
		err.Message += "; did you mean " + strings.Join(near, ", ") + "?"
	}
	return err
}

// stagingDir names the staging folder of an operation.
func (p *Puller[R, V]) stagingDir(op *operation.Op) string {
	return filepath.Join(p.staging, p.noun.Name+"-"+op.ID())
}

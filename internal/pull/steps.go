package pull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/operation"
)

// The notes of an operation.
const (
	noteTemp      = "temp"      // string: the build folder outside our own
	notePublished = "published" // string: the id about to be published
)

// work is one job under way: what its steps hand on in memory. After a crash a
// job is undone, from its notes alone.
type work[R, V any] struct {
	p      *Puller[R, V]
	job    Job
	plan   Plan[R]
	flight *flight // where others may wait for what we make
	rec    R
	made   bool // its files lie in the staging folder; else it is here already
}

func (p *Puller[R, V]) steps(op *operation.Op) ([]operation.Step, error) {
	w := &work[R, V]{p: p}
	if err := op.Params(&w.job); err != nil {
		return nil, err
	}
	return []operation.Step{
		{Name: "resolve", Do: w.resolve, Undo: w.close},
		{Name: "make", Do: w.make, Undo: w.unmake},
		{Name: "publish", Do: w.publish, Undo: w.unpublish},
	}, nil
}

// resolve finds out what the source means now, under no lock however long it takes.
func (w *work[R, V]) resolve(ctx context.Context, op *operation.Op) error {
	op.Stage("resolving " + w.job.Source.Ref)
	plan, err := w.p.noun.Plan(ctx, w.job, reporter(op))
	if err != nil {
		return err
	}
	w.plan = plan
	if plan.ID == "" && plan.Same == nil {
		return nil // only making tells whether it is what has the name
	}
	holder, err := w.p.noun.ByName(ctx, w.job.Name)
	if err != nil || plan.ID != "" && w.p.noun.ID(holder) == plan.ID {
		return nil // the name is free, ours, or a matter of the publication
	}
	var none R
	return w.mayTake(holder, plan.Describe(none))
}

func (w *work[R, V]) close(context.Context, *operation.Op) error {
	if w.plan.Close != nil {
		w.plan.Close()
		w.plan.Close = nil
	}
	if w.p.noun.End != nil {
		w.p.noun.End(w.job)
	}
	return nil
}

// reporter passes progress on to an operation.
func reporter(op *operation.Op) Report {
	return func(stage string, p api.Progress) {
		if stage != op.Snapshot().Stage {
			op.Stage(stage)
		}
		if p.Unit != "" {
			op.Progress(p.Done, p.Total, p.Unit)
		}
	}
}

// mayTake decides whether a name passes from its holder to rec: when told so, and
// when it is the own name of what both were made from.
func (w *work[R, V]) mayTake(holder, rec R) error {
	n := w.p.noun
	if w.job.Replace || !w.job.Named && n.Reference(holder) == n.Reference(rec) {
		return nil
	}
	return api.Errorf(api.KindExists, "cannot name %s %q: the name stands for another %s, made from %s; --replace moves it",
		n.Name, w.job.Name, n.Name, n.Reference(holder)).WithHint("banger %s show %s", n.Name, w.job.Name)
}

// make makes the thing in its staging folder, unless it is here, or another job
// that is under way makes it.
func (w *work[R, V]) make(ctx context.Context, op *operation.Op) error {
	defer func() { _ = w.close(ctx, op) }()
	here, err := w.orHere(ctx, op)
	if err == nil && here && w.plan.Confirm != nil {
		err = w.plan.Confirm(ctx, reporter(op))
	}
	if err != nil || here {
		return err
	}
	temp := debian.TempDir()
	if err := op.Set(noteTemp, temp); err != nil {
		return err
	}
	dir := w.p.stagingDir(op)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("cannot create staging folder: %w", err)
	}
	rec, err := w.plan.Make(ctx, dir, temp, reporter(op))
	if err != nil {
		return err
	}
	w.rec, w.made = w.plan.Describe(rec), true
	return nil
}

// orHere says whether the thing is here, or another job that was under way made
// it; otherwise it is ours to make.
func (w *work[R, V]) orHere(ctx context.Context, op *operation.Op) (bool, error) {
	for {
		here, err := w.here(ctx)
		if err != nil || here {
			return here, err
		}
		if w.plan.Key == "" {
			return false, nil
		}
		fl, ours := w.p.flights.claim(w.plan.Key, op)
		if ours {
			w.flight = fl
			// It may have come between the look and the claim.
			return w.here(ctx)
		}
		if done, err := w.wait(ctx, op, fl); err != nil || done {
			return done, err
		}
	}
}

// here looks whether what is wanted need not be made.
func (w *work[R, V]) here(ctx context.Context) (bool, error) {
	if w.job.Force || w.plan.InPlace {
		return false, nil
	}
	n := w.p.noun
	var rec R
	var err error
	switch {
	case w.plan.ID != "":
		rec, err = n.ByID(ctx, w.plan.ID)
	case w.plan.Same != nil:
		if rec, err = n.ByName(ctx, w.job.Name); err == nil && !w.plan.Same(rec) {
			return false, nil
		}
	default:
		return false, nil
	}
	if api.KindOf(err) == api.KindNotFound {
		return false, nil
	}
	if err == nil {
		err = w.p.check(rec)
	}
	if err != nil {
		return false, err
	}
	w.rec = w.plan.Describe(rec)
	return true, nil
}

// wait waits for another who makes the same, showing its progress. done says that
// it is here; otherwise, without an error, it is for us to make.
func (w *work[R, V]) wait(ctx context.Context, op *operation.Op, fl *flight) (done bool, err error) {
	end, err := w.p.follow(ctx, fl.op.ID(), reporter(op))
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, err
	}
	switch id := fl.published(); {
	case end.Status == api.OperationSucceeded && id != "":
		rec, err := w.p.noun.ByID(ctx, id)
		if api.KindOf(err) == api.KindNotFound {
			return false, nil // and deleted again
		}
		if err == nil {
			err = w.p.check(rec)
		}
		w.rec = w.plan.Describe(rec)
		return err == nil, err
	case end.Status == api.OperationFailed && api.KindOf(end.Error) != api.KindExists && end.Error != nil:
		return false, end.Error
	}
	return false, nil
}

func (w *work[R, V]) unmake(ctx context.Context, op *operation.Op) error {
	errs := []error{w.close(ctx, op)}
	var temp string
	if op.Get(noteTemp, &temp) {
		errs = append(errs, debian.RemoveTemp(ctx, temp))
	}
	if err := debian.RemoveTree(ctx, w.p.stagingDir(op)); err != nil {
		errs = append(errs, fmt.Errorf("cannot remove staging folder: %w", err))
	}
	return errors.Join(errs...)
}

// publish is one atom: the name is checked again, the staging folder renamed to
// its final one, the record inserted. Nothing slow happens under the lock.
func (w *work[R, V]) publish(ctx context.Context, op *operation.Op) error {
	op.Stage("publishing")
	rec, changed, before, err := w.place(ctx, op)
	if err != nil {
		return err
	}
	if w.flight != nil {
		w.flight.landed(w.p.noun.ID(rec))
	}
	// What was made in vain, or was in the way.
	if err := os.RemoveAll(w.p.stagingDir(op)); err != nil {
		w.p.log.WarnContext(ctx, "cannot remove a staging folder", "error", err)
	}
	vms, err := w.p.noun.VMs(ctx)
	if err != nil {
		return err
	}
	return op.SetResult(w.p.noun.View(rec, w.p.usedBy(vms, rec), changed, before))
}

// place is the locked part. changed says that a name or files changed, before
// what the name stood for when it moved.
func (w *work[R, V]) place(ctx context.Context, op *operation.Op) (rec R, changed bool, before *R, err error) {
	n := w.p.noun
	rec = w.rec
	id := n.ID(rec)
	w.p.publish.Lock()
	defer w.p.publish.Unlock()

	holder, err := n.ByName(ctx, w.job.Name)
	switch {
	case err == nil && n.ID(holder) != id:
		if err := w.mayTake(holder, rec); err != nil {
			return rec, false, nil, err
		}
		before, changed = &holder, true
	case err != nil && api.KindOf(err) != api.KindNotFound:
		return rec, false, nil, err
	case err != nil:
		changed = true
	}
	if w.made {
		placed, err := w.files(ctx, op, &rec)
		if err != nil {
			return rec, false, nil, err
		}
		changed = changed || placed
	} else if _, err := n.ByID(ctx, id); err != nil {
		return rec, false, nil, err // deleted since it was found here
	}
	*n.NameOf(&rec) = w.job.Name
	if err := n.Publish(ctx, rec, func(holder R) error { return w.mayTake(holder, rec) }); err != nil {
		return rec, false, nil, err
	}
	rec, err = n.ByName(ctx, w.job.Name)
	return rec, changed, before, err
}

// files renames the staging folder to its final name, unless what is there is
// the same and whole: then rec becomes that one's.
func (w *work[R, V]) files(ctx context.Context, op *operation.Op, rec *R) (placed bool, err error) {
	n := w.p.noun
	id, staging := n.ID(*rec), w.p.stagingDir(op)
	final := n.Dir(id)
	there, err := n.ByID(ctx, id)
	switch {
	case err == nil && !w.plan.InPlace && w.p.check(there) == nil:
		*rec = w.plan.Describe(there)
		return false, nil
	case err == nil:
		// VMs may be running from the old files: they stay until both are exchanged.
		err := unix.Renameat2(unix.AT_FDCWD, staging, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE)
		if err != nil { // the old ones are gone, or the file system cannot
			if err := os.RemoveAll(final); err != nil {
				return false, err
			}
			err = os.Rename(staging, final)
		}
		return true, errors.Join(err, syncDir(filepath.Dir(final)))
	case api.KindOf(err) != api.KindNotFound:
		return false, err
	}
	if err := op.Set(notePublished, id); err != nil {
		return false, err
	}
	if err := os.RemoveAll(final); err != nil { // without a record it is nobody's
		return false, err
	}
	if err := os.Rename(staging, final); err != nil {
		return false, err
	}
	return true, syncDir(filepath.Dir(final))
}

// unpublish removes files without a record. The record is the last thing made:
// with it all is published, and may be in use already.
func (w *work[R, V]) unpublish(ctx context.Context, op *operation.Op) error {
	var id string
	if !op.Get(notePublished, &id) {
		return nil
	}
	w.p.publish.Lock()
	defer w.p.publish.Unlock()
	if _, err := w.p.noun.ByID(ctx, id); api.KindOf(err) != api.KindNotFound {
		return err
	}
	return os.RemoveAll(w.p.noun.Dir(id))
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

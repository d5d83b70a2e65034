package pull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/operation"
)

// The notes of an operation.
const (
	noteTemp      = "temp"      // string: the build folder outside our own
	noteMade      = "made"      // R: what was made
	notePublished = "published" // string: the id about to be published
	noteReplaced  = "replaced"  // string: the id whose name was taken
)

func (p *Puller[R, V]) steps(*operation.Op) ([]operation.Step, error) {
	return []operation.Step{
		{Name: "make", Do: p.make, Undo: p.unmake},
		{Name: "publish", Do: p.place, Undo: p.unplace},
	}, nil
}

// make makes the thing in its staging folder.
func (p *Puller[R, V]) make(ctx context.Context, op *operation.Op) error {
	var in params
	if err := op.Params(&in); err != nil {
		return err
	}
	temp := debian.TempDir()
	if err := op.Set(noteTemp, temp); err != nil {
		return err
	}
	op.Stage("preparing")
	dir := p.stagingDir(op)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("cannot create staging folder: %w", err)
	}
	stage := ""
	rec, err := p.noun.Make(ctx, in.Name, dir, temp, func(pr debian.Progress) {
		if pr.Stage != stage {
			stage = pr.Stage
			op.Stage(stage)
		}
		if pr.Unit != "" {
			op.Progress(pr.Done, pr.Total, pr.Unit)
		}
	})
	if err != nil {
		return err
	}
	return op.Set(noteMade, rec)
}

func (p *Puller[R, V]) unmake(ctx context.Context, op *operation.Op) error {
	var errs []error
	var temp string
	if op.Get(noteTemp, &temp) {
		errs = append(errs, debian.RemoveTemp(ctx, temp))
	}
	if err := os.RemoveAll(p.stagingDir(op)); err != nil {
		errs = append(errs, fmt.Errorf("cannot remove staging folder: %w", err))
	}
	return errors.Join(errs...)
}

// place publishes: the name is checked again, the staging folder renamed to its
// final one, the record inserted. Nothing slow happens under the lock.
func (p *Puller[R, V]) place(ctx context.Context, op *operation.Op) error {
	var in params
	if err := op.Params(&in); err != nil {
		return err
	}
	var rec R
	if !op.Get(noteMade, &rec) {
		return api.Errorf(api.KindInternal, "cannot publish %s %q: nothing was made", p.noun.Name, in.Name)
	}
	op.Stage("publishing")
	p.publish.Lock()
	defer p.publish.Unlock()

	old, err := p.Find(ctx, in.Name)
	switch {
	case err == nil && p.noun.Digest(old) == p.noun.Digest(rec) && p.check(old) == nil:
		if err := os.RemoveAll(p.stagingDir(op)); err != nil {
			return err
		}
		return p.finish(ctx, op, old, false)
	case err == nil && !in.Force:
		return api.Errorf(api.KindExists, "cannot publish %s %q: another with this name came meanwhile", p.noun.Name, in.Name).
			WithHint("banger %s show %s", p.noun.Name, in.Name)
	case err == nil:
		// Who uses the old one keeps it, without the name.
		if err := op.Set(noteReplaced, p.noun.ID(old)); err != nil {
			return err
		}
		if err := p.setName(ctx, p.noun.ID(old), ""); err != nil {
			return err
		}
	case api.KindOf(err) != api.KindNotFound:
		return err
	}

	id := p.noun.ID(rec)
	// The same content under no name any more: its files are good, or go.
	if same, err := p.Find(ctx, id); err == nil {
		if p.check(same) == nil {
			if err := os.RemoveAll(p.stagingDir(op)); err != nil {
				return err
			}
			if err := p.setName(ctx, id, in.Name); err != nil {
				return err
			}
			return p.finish(ctx, op, rec, true)
		}
		if err := p.noun.Delete(ctx, id); err != nil {
			return err
		}
	}
	if err := op.Set(notePublished, id); err != nil {
		return err
	}
	final := p.noun.Dir(id)
	if err := os.RemoveAll(final); err != nil { // without a record it is nobody's
		return err
	}
	if err := os.Rename(p.stagingDir(op), final); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(final)); err != nil {
		return err
	}
	if err := p.noun.Insert(ctx, rec); err != nil {
		return err
	}
	return p.finish(ctx, op, rec, true)
}

func (p *Puller[R, V]) finish(ctx context.Context, op *operation.Op, rec R, changed bool) error {
	result, err := p.view(ctx, rec, changed)
	if err != nil {
		return err
	}
	return op.SetResult(result)
}

func (p *Puller[R, V]) unplace(ctx context.Context, op *operation.Op) error {
	var in params
	if err := op.Params(&in); err != nil {
		return err
	}
	p.publish.Lock()
	defer p.publish.Unlock()
	var errs []error
	var id string
	if op.Get(notePublished, &id) {
		// The record is the last thing made: with it all is published, and may be
		// in use already.
		if rec, err := p.Find(ctx, id); err == nil && p.check(rec) == nil {
			return nil
		}
		if err := p.noun.Delete(ctx, id); err != nil && api.KindOf(err) != api.KindNotFound {
			errs = append(errs, err)
		} else if err := os.RemoveAll(p.noun.Dir(id)); err != nil {
			errs = append(errs, err)
		}
	}
	var replaced string
	if op.Get(noteReplaced, &replaced) {
		if err := p.setName(ctx, replaced, in.Name); err != nil && api.KindOf(err) != api.KindNotFound {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// clearStaging removes what a dead daemon left in the staging folder. What does
// not go is told of; a pull makes a folder of its own.
func (p *Puller[R, V]) clearStaging(ctx context.Context) error {
	entries, err := os.ReadDir(p.staging)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look for half-made things: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), p.noun.Name+"-") {
			continue
		}
		if err := debian.RemoveTree(ctx, filepath.Join(p.staging, e.Name())); err != nil {
			p.log.WarnContext(ctx, "cannot remove a half-made thing", "error", err)
			continue
		}
		p.log.InfoContext(ctx, "removed a half-made thing", "folder", e.Name())
	}
	return nil
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

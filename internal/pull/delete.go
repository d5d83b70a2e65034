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
)

// doomed is the file that marks a folder whose record is about to be removed: a
// daemon that finds it and no record removes the folder.
const doomed = ".deleted"

// Delete forgets what has the exact name or id: a name goes alone, unless it is
// the last, an id goes with all its names. gone says that the files went too. It
// is of kind bad-state while VMs use it. Look-up, check and removal of the record
// are one short step; the files go after it.
func (p *Puller[R, V]) Delete(ctx context.Context, ref string) (rec R, gone bool, err error) {
	trash, rec, err := p.forget(ctx, ref)
	if err != nil || trash == "" {
		return rec, false, err
	}
	if err := debian.RemoveTree(ctx, trash); err != nil {
		// The next daemon clears the staging folder.
		p.log.WarnContext(ctx, "cannot remove the files of what was deleted", p.noun.Name, ref, "error", err)
	}
	return rec, true, nil
}

// forget is the locked part: it removes the record and moves the files aside.
// trash is where they are, empty when they stay.
func (p *Puller[R, V]) forget(ctx context.Context, ref string) (trash string, rec R, err error) {
	p.publish.Lock()
	defer p.publish.Unlock()
	rec, err = p.Find(ctx, ref)
	if err != nil {
		return "", rec, err
	}
	byID := p.noun.ID(rec) == ref && *p.noun.NameOf(&rec) != ref
	id := p.noun.ID(rec)
	dir := p.noun.Dir(id)
	mark := filepath.Join(dir, doomed)
	if f, err := os.Create(mark); err == nil {
		_ = f.Close()
	} // else there is no folder to leave behind, or none that we could remove
	gone, err := p.noun.Remove(ctx, rec, byID)
	if err != nil || !gone {
		if rerr := removeIfThere(mark); rerr != nil {
			p.log.WarnContext(ctx, "cannot remove a mark", "error", rerr)
		}
		return "", rec, err
	}
	trash = filepath.Join(p.staging, p.noun.Name+"-deleted-"+id)
	if err := os.RemoveAll(trash); err != nil {
		return "", rec, err
	}
	if err := os.Rename(dir, trash); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", rec, fmt.Errorf("cannot remove files of %s %q: %w", p.noun.Name, ref, err)
	}
	return trash, rec, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Recover tidies up after a daemon that died: half-made things, deleted ones
// whose files are still there and, where the noun says so, things that lost their
// name and that no VM uses. It is called at start, before anything is pulled or
// created.
func (p *Puller[R, V]) Recover(ctx context.Context) error {
	err := errors.Join(p.clearStaging(ctx), p.clearDeleted(ctx))
	if !p.noun.Forget {
		return err
	}
	recs, lerr := p.noun.All(ctx)
	vms, verr := p.noun.VMs(ctx)
	if lerr != nil || verr != nil {
		return errors.Join(err, lerr, verr)
	}
	for _, rec := range recs {
		if *p.noun.NameOf(&rec) != "" || len(p.usedBy(vms, rec)) > 0 {
			continue
		}
		if _, _, derr := p.Delete(ctx, p.noun.ID(rec)); derr != nil {
			err = errors.Join(err, derr)
		}
	}
	return err
}

// clearStaging removes what a dead daemon left in the staging folder. What does
// not go is told of; a job makes a folder of its own.
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

// clearDeleted removes the folders whose record is gone and that say so. A folder
// that only has no record stays: the store may be an older one, put back.
func (p *Puller[R, V]) clearDeleted(ctx context.Context) error {
	root := filepath.Dir(p.noun.Dir("x"))
	marks, err := filepath.Glob(filepath.Join(root, "*", doomed))
	if err != nil {
		return err
	}
	for _, mark := range marks {
		dir := filepath.Dir(mark)
		switch _, err := p.noun.ByID(ctx, filepath.Base(dir)); {
		case err == nil:
			if err := removeIfThere(mark); err != nil {
				return err
			}
		case api.KindOf(err) == api.KindNotFound:
			if err := debian.RemoveTree(ctx, dir); err != nil {
				p.log.WarnContext(ctx, "cannot remove a deleted thing", "error", err)
			}
		}
	}
	return nil
}

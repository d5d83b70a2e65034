package pull

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// List gives the things that are here, oldest first.
func (p *Puller[R, V]) List(ctx context.Context) ([]V, error) {
	recs, err := p.noun.All(ctx)
	if err != nil {
		return nil, err
	}
	vms, err := p.noun.VMs(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]V, 0, len(recs))
	for _, rec := range recs {
		list = append(list, p.noun.View(rec, p.usedBy(vms, rec), false))
	}
	return list, nil
}

// Show gives one thing by its exact name or id.
func (p *Puller[R, V]) Show(ctx context.Context, ref string) (V, error) {
	rec, err := p.Find(ctx, ref)
	if err != nil {
		var none V
		return none, err
	}
	return p.view(ctx, rec, false)
}

// Catalog lists what can be pulled, and says what of it is here.
func (p *Puller[R, V]) Catalog(ctx context.Context) ([]api.CatalogEntry, error) {
	names, err := p.names(ctx)
	if err != nil {
		return nil, err
	}
	here := map[string]bool{}
	for _, name := range names {
		here[name] = true
	}
	list := p.noun.Catalog()
	for i := range list {
		list[i].Local = here[list[i].Name]
	}
	return list, nil
}

// Find gives the record with the exact name, else the exact id. Only an error
// of kind not-found means that there is none.
func (p *Puller[R, V]) Find(ctx context.Context, ref string) (R, error) {
	rec, err := p.noun.ByName(ctx, ref)
	if api.KindOf(err) != api.KindNotFound {
		return rec, err
	}
	rec, ierr := p.noun.ByID(ctx, ref)
	if api.KindOf(ierr) != api.KindNotFound {
		return rec, ierr
	}
	var none R
	return none, api.AsError(err).WithHint("banger %s list", p.noun.Name)
}

// check looks whether the files of a record are whole. None of its errors is of
// kind not-found: the record says that the thing is here.
func (p *Puller[R, V]) check(rec R) error {
	noun, name := p.noun.Name, *p.noun.NameOf(&rec)
	wrong, err := p.noun.Check(rec)
	switch {
	case err == nil && wrong == "":
		return nil
	case err == nil:
		return api.Errorf(api.KindInternal, "cannot use %s %q: %s", noun, name, wrong).
			WithHint("banger %s pull %s --force", noun, name)
	case errors.Is(err, os.ErrNotExist):
		return api.Errorf(api.KindBadState, "cannot use %s %q: its files are gone: %w", noun, name, err).
			WithHint("banger %s pull %s --force", noun, name)
	case errors.Is(err, os.ErrPermission):
		return api.Errorf(api.KindDenied, "cannot use %s %q: %w", noun, name, err).
			WithHint("ls -ld %s", p.noun.Dir(p.noun.ID(rec)))
	}
	return fmt.Errorf("cannot use %s %q: %w", noun, name, err)
}

// names are those of the things that are here.
func (p *Puller[R, V]) names(ctx context.Context) ([]string, error) {
	recs, err := p.noun.All(ctx)
	var names []string
	for _, rec := range recs {
		names = append(names, *p.noun.NameOf(&rec))
	}
	return names, err
}

// setName renames a record, to nothing where another takes its name.
func (p *Puller[R, V]) setName(ctx context.Context, id, name string) error {
	_, err := p.noun.Update(ctx, id, func(rec *R) error {
		*p.noun.NameOf(rec) = name
		return nil
	})
	return err
}

// view is what a client sees of a record.
func (p *Puller[R, V]) view(ctx context.Context, rec R, changed bool) (V, error) {
	vms, err := p.noun.VMs(ctx)
	if err != nil {
		var none V
		return none, err
	}
	return p.noun.View(rec, p.usedBy(vms, rec), changed), nil
}

// usedBy names the VMs made from a thing.
func (p *Puller[R, V]) usedBy(vms []store.VM, rec R) []string {
	names := []string{}
	for _, vm := range vms {
		if p.noun.UsedID(vm) == p.noun.ID(rec) {
			names = append(names, vm.Name)
		}
	}
	return names
}

// Recover tidies up after a daemon that died: half-made things, and things that
// lost their name and that no VM uses. It is called at start, before anything
// is pulled or created.
func (p *Puller[R, V]) Recover(ctx context.Context) error {
	err := p.clearStaging(ctx)
	recs, lerr := p.noun.All(ctx)
	vms, verr := p.noun.VMs(ctx)
	if lerr != nil || verr != nil {
		return errors.Join(err, lerr, verr)
	}
	for _, rec := range recs {
		if *p.noun.NameOf(&rec) != "" || len(p.usedBy(vms, rec)) > 0 {
			continue
		}
		id := p.noun.ID(rec)
		if derr := p.noun.Delete(ctx, id); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		err = errors.Join(err, os.RemoveAll(p.noun.Dir(id)))
	}
	return err
}

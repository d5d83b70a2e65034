package pull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

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
		list = append(list, p.noun.View(rec, p.usedBy(vms, rec), false, nil))
	}
	return list, nil
}

// Show gives one thing by its exact name or id.
func (p *Puller[R, V]) Show(ctx context.Context, ref string) (V, error) {
	var none V
	rec, err := p.Find(ctx, ref)
	if err != nil {
		return none, err
	}
	vms, err := p.noun.VMs(ctx)
	if err != nil {
		return none, err
	}
	return p.noun.View(rec, p.usedBy(vms, rec), false, nil), nil
}

// Catalog lists what can be pulled, and says what of it is here.
func (p *Puller[R, V]) Catalog(ctx context.Context, refresh bool) ([]api.CatalogEntry, error) {
	names, err := p.names(ctx)
	if err != nil {
		return nil, err
	}
	list, err := p.noun.Catalog(ctx, refresh)
	for i := range list {
		list[i].Local = slices.Contains(names, list[i].Name)
	}
	return list, err
}

// Find gives the record with the exact name, else the exact id, else the alias of
// ref as name. Only an error of kind not-found means that there is none.
func (p *Puller[R, V]) Find(ctx context.Context, ref string) (R, error) {
	rec, err := p.noun.ByName(ctx, ref)
	if api.KindOf(err) != api.KindNotFound {
		return rec, err
	}
	rec, ierr := p.noun.ByID(ctx, ref)
	if api.KindOf(ierr) != api.KindNotFound {
		return rec, ierr
	}
	if p.noun.Alias != nil {
		if alias := p.noun.Alias(ref); alias != "" && alias != ref {
			rec, aerr := p.noun.ByName(ctx, alias)
			if api.KindOf(aerr) != api.KindNotFound {
				return rec, aerr
			}
		}
	}
	var none R
	return none, api.AsError(err).WithHint("banger %s list", p.noun.Name)
}

// Whole looks whether the files of a record are there and what they were; its
// error is for people, and never of kind not-found.
func (p *Puller[R, V]) Whole(rec R) error { return p.check(rec) }

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
			WithHint("%s", p.noun.Mend(rec))
	case errors.Is(err, os.ErrNotExist):
		return api.Errorf(api.KindBadState, "cannot use %s %q: its files are gone: %w", noun, name, err).
			WithHint("%s", p.noun.Mend(rec))
	case errors.Is(err, os.ErrPermission):
		return api.Errorf(api.KindDenied, "cannot use %s %q: %w", noun, name, err).
			WithHint("ls -ld %s", p.noun.Dir(p.noun.ID(rec)))
	}
	var known *api.Error
	if errors.As(err, &known) {
		return known
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

package vm

import (
	"context"
	"sort"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// find looks a VM up as people name it: exact name, else exact id, else a
// prefix of name or id that only one VM has.
func (m *Manager) find(ctx context.Context, ref string) (store.VM, error) {
	rec, err := m.findExact(ctx, ref)
	if err == nil || api.KindOf(err) != api.KindNotFound {
		return rec, err
	}
	all, err := m.d.Store.VMs(ctx)
	if err != nil {
		return store.VM{}, err
	}
	return choose(all, ref)
}

// findExact looks a VM up by exact name or id, for what cannot be taken back.
// One whose record cannot be read is found, broken, so that it can be deleted.
func (m *Manager) findExact(ctx context.Context, ref string) (store.VM, error) {
	if ref == "" {
		return store.VM{}, api.Errorf(api.KindInvalid, "cannot find a vm: no name given").WithHint("banger vm list")
	}
	rec, err := m.d.Store.VMByName(ctx, ref)
	if api.KindOf(err) == api.KindNotFound {
		rec, err = m.d.Store.VM(ctx, ref)
	}
	switch api.KindOf(err) {
	case "":
		return rec, nil
	case api.KindNotFound:
		return store.VM{}, notFound(ref)
	}
	return m.unreadable(ctx, err, func(v store.VM) bool { return v.Name == ref || v.ID == ref })
}

// record reads the record with the id, also one that cannot be read.
func (m *Manager) record(ctx context.Context, id string) (store.VM, error) {
	rec, err := m.d.Store.VM(ctx, id)
	if err == nil || api.KindOf(err) == api.KindNotFound {
		return rec, err
	}
	return m.unreadable(ctx, err, func(v store.VM) bool { return v.ID == id })
}

// unreadable finds what the store lists as broken; with none, err it is.
func (m *Manager) unreadable(ctx context.Context, err error, is func(store.VM) bool) (store.VM, error) {
	all, lerr := m.d.Store.VMs(ctx)
	if lerr != nil {
		return store.VM{}, err
	}
	for _, v := range all {
		if v.Status == api.StatusBroken && is(v) {
			return v, nil
		}
	}
	return store.VM{}, err
}

func notFound(ref string) *api.Error {
	return api.Errorf(api.KindNotFound, "cannot find vm %q: no such vm", ref).WithHint("banger vm list")
}

// exactly is findExact with a better refusal: a prefix that would have done
// elsewhere is named as the candidate.
func (m *Manager) exactly(ctx context.Context, ref string) (store.VM, error) {
	rec, err := m.findExact(ctx, ref)
	if err == nil || api.KindOf(err) != api.KindNotFound {
		return rec, err
	}
	e := notFound(ref)
	if all, err := m.d.Store.VMs(ctx); err == nil {
		if hits := withPrefix(all, ref); len(hits) > 0 {
			e = api.Errorf(api.KindNotFound, "cannot find vm %q: this needs the exact name or id", ref).WithHint("banger vm list")
			e.Candidates = names(hits)
		}
	}
	return store.VM{}, e
}

// choose resolves a reference among all VMs; it holds the whole rule, so that
// it can be tested and fuzzed without a store.
func choose(all []store.VM, ref string) (store.VM, error) {
	for _, v := range all {
		if v.Name == ref {
			return v, nil
		}
	}
	for _, v := range all {
		if v.ID == ref {
			return v, nil
		}
	}
	hits := withPrefix(all, ref)
	switch len(hits) {
	case 0:
		return store.VM{}, notFound(ref)
	case 1:
		return hits[0], nil
	}
	e := api.Errorf(api.KindInvalid, "cannot find vm %q: %d vms begin with it: %s", ref, len(hits), strings.Join(names(hits), ", ")).
		WithHint("banger vm list")
	e.Candidates = names(hits)
	return store.VM{}, e
}

func withPrefix(all []store.VM, ref string) []store.VM {
	var hits []store.VM
	if ref == "" {
		return nil
	}
	for _, v := range all {
		if strings.HasPrefix(v.Name, ref) || strings.HasPrefix(v.ID, ref) {
			hits = append(hits, v)
		}
	}
	sort.Slice(hits, func(i, j int) bool { return hits[i].Name < hits[j].Name })
	return hits
}

func names(vms []store.VM) []string {
	out := make([]string, 0, len(vms))
	for _, v := range vms {
		out = append(out, v.Name)
	}
	return out
}

package vm

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
)

// Delete takes a stopped VM away for good, with force also a running one and
// one in the making. The reference must be exact. With force a missing VM is
// success.
func (m *Manager) Delete(ctx context.Context, ref string, force bool) (api.Operation, error) {
	rec, err := m.exactly(ctx, ref)
	if force && api.KindOf(err) == api.KindNotFound {
		return m.d.Operations.Finished(ctx, kindDelete, ref, api.VM{Name: ref, Status: api.StatusDeleting, Labels: map[string]string{}})
	}
	if err != nil {
		return api.Operation{}, err
	}
	v := verbDelete
	if force {
		v = verbForceDelete
	}
	return m.begin(ctx, kindDelete, v, rec, verbParams{Ref: ref, Force: force})
}

func (m *Manager) doDelete(ctx context.Context, op *operation.Op, p verbParams) error {
	v := verbDelete
	if p.Force {
		v = verbForceDelete
	}
	gone := api.VM{ID: p.ID, Name: p.Ref, Labels: map[string]string{}}
	h, err := m.hold(ctx, op.ID(), v, p.ID, api.StatusDeleting)
	if api.KindOf(err) == api.KindNotFound {
		// Preempted in the making, deleted by another, or by us before a crash.
		gone.Changed = true
		return op.SetResult(gone)
	}
	if err != nil {
		return err
	}
	defer h.done()
	op.Stage("deleting")
	if err := m.intend(ctx, p.ID); err != nil && h.rec.Status != api.StatusBroken { // which may mean unreadable
		return err
	}
	// From here on there is no way back: a cancel comes too late.
	if err := m.erase(context.WithoutCancel(ctx), p.ID, "deleted"); err != nil {
		return err
	}
	last := m.view(h.rec)
	last.Status, last.Changed = api.StatusDeleting, true
	return op.SetResult(last)
}

// intend writes down that the VM is to go, before any of it does.
func (m *Manager) intend(ctx context.Context, id string) error {
	_, err := m.d.Store.UpdateVM(ctx, id, func(v *store.VM) error { v.Status = api.StatusDeleting; return nil })
	return err
}

// erase takes away all there is of a VM: its process, its files, its record.
// It may be called again after it failed or was interrupted. What cannot be
// taken away stays visible, broken, with the reason.
func (m *Manager) erase(ctx context.Context, id, why string) error {
	if err := safeID(id); err != nil {
		return err
	}
	mc := m.machine(id)
	rec, err := m.d.Store.VM(ctx, id)
	if err != nil && api.KindOf(err) != api.KindNotFound {
		// A record that cannot be read can still be deleted.
		m.d.Log.Warn("deleting a vm whose record cannot be read", "vm", id, "error", err)
	}
	err = m.eraseParts(ctx, mc, m.rootOf(rec.RootDisk))
	if err == nil {
		err = m.d.Store.DeleteVM(ctx, id)
		if api.KindOf(err) == api.KindNotFound {
			err = nil
		}
	}
	if err != nil {
		e := api.Errorf(api.KindOf(err), "cannot delete vm %q: %w", first(rec.Name, id), err)
		_, note := m.d.Store.UpdateVM(ctx, id, func(v *store.VM) error {
			v.Status, v.Error = api.StatusBroken, e
			return nil
		})
		if api.KindOf(note) == api.KindNotFound {
			note = nil
		}
		return both(e, note)
	}
	m.forget(mc)
	rec.ID = id
	m.event("vm.deleted", rec, map[string]string{"reason": why})
	return nil
}

func (m *Manager) eraseParts(ctx context.Context, mc *machine, root rootStrategy) error {
	dir := m.d.Layout.VM(mc.id)
	if r := mc.current(); r != nil {
		if err := m.put(ctx, mc, r, causeRemove); err != nil {
			return err
		}
	}
	if err := both(m.clearAfterKeeper(dir, mc.id), os.RemoveAll(dir.Run)); err != nil {
		return api.Errorf(diskKind(err), "cannot remove its files: %w", err)
	}
	if err := root.release(ctx, mc.id); err != nil {
		return err
	}
	// Letting go of the disks' blocks takes the file system a while: nobody
	// waits for it. What is in the staging folder is removed at the latest by
	// the next daemon.
	gone := filepath.Join(m.d.Layout.Staging(), "vm-"+mc.id)
	if os.Rename(dir.State, gone) == nil {
		m.spawn(func(context.Context) {
			if err := os.RemoveAll(gone); err != nil {
				m.d.Log.Warn("cannot remove the files of a deleted vm yet", "vm", mc.id, "error", err)
			}
		})
		return nil
	}
	if err := os.RemoveAll(dir.State); err != nil {
		return api.Errorf(diskKind(err), "cannot remove its files: %w", err)
	}
	return nil
}

// removeLater deletes a VM that is to go by itself, under its lock.
func (m *Manager) removeLater(ctx context.Context, id string) {
	if err := m.remove(ctx, id, "auto-remove"); err != nil && ctx.Err() == nil {
		m.d.Log.Error("cannot delete the vm", "vm", id, "error", err)
	}
}

// remove deletes a VM outside an operation: its record says already that it is
// to go (End, AutoRemove), so that the next daemon would finish this.
func (m *Manager) remove(ctx context.Context, id, why string) error {
	mc := m.machine(id)
	if err := mc.acquire(ctx); err != nil {
		return err
	}
	defer mc.release()
	defer mc.enter(api.StatusDeleting, "")()
	return m.erase(context.WithoutCancel(ctx), id, why)
}

// Prune deletes the stopped VMs that pass the filters and were stopped for
// long enough; a dry run only lists them.
func (m *Manager) Prune(ctx context.Context, how api.PruneVMs) ([]api.Result, error) {
	if how.StoppedForMS < 0 {
		return nil, api.Errorf(api.KindInvalid, "cannot prune vms: a duration of %d ms is negative", how.StoppedForMS)
	}
	all, err := m.List(ctx, how.Filters)
	if err != nil {
		return nil, err
	}
	out := []api.Result{}
	before := m.now().Add(-time.Duration(how.StoppedForMS) * time.Millisecond)
	for _, v := range all {
		since := v.CreatedAt
		if v.StoppedAt != nil {
			since = *v.StoppedAt
		}
		if v.Status != api.StatusStopped || since.After(before) {
			continue
		}
		r := api.Result{Ref: v.Name, ID: v.ID, OK: true}
		if !how.DryRun {
			err := m.prune(ctx, v.ID)
			r.OK, r.Changed, r.Error = err == nil, err == nil, api.AsError(err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (m *Manager) prune(ctx context.Context, id string) error {
	op, err := m.Delete(ctx, id, false)
	if err != nil {
		return err
	}
	if op, err = m.d.Operations.Wait(ctx, op.ID); err != nil {
		return err
	}
	if op.Error != nil {
		return op.Error
	}
	return nil
}

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
)

// Rename gives a VM another name; the guest hears of it at its next start.
func (m *Manager) Rename(ctx context.Context, ref string, how api.RenameVM) (api.VM, error) {
	name := how.Name
	if err := checkName(name, "banger vm rename "+ref+" %s"); err != nil {
		return api.VM{}, err
	}
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.VM{}, err
	}
	if rec.Name == name {
		return m.view(rec), nil
	}
	if _, err := gate(verbRename, rec.Name, m.status(rec)); err != nil {
		return api.VM{}, err
	}
	m.reserving.Lock()
	saved, err := m.d.Store.UpdateVM(ctx, rec.ID, func(v *store.VM) error { v.Name = name; return nil })
	m.reserving.Unlock()
	if api.KindOf(err) == api.KindExists {
		return api.VM{}, api.Errorf(api.KindExists, "cannot rename vm %q to %q: the name is taken", rec.Name, name).WithHint("banger vm show %s", name)
	}
	if err != nil {
		return api.VM{}, err
	}
	m.machine(rec.ID).update(func() {})
	m.event("vm.renamed", saved, map[string]string{"from": rec.Name})
	v := m.view(saved)
	v.Changed = true
	return v, nil
}

// Set changes a VM. Sizes of processor and memory hold from the next start;
// disks grow at once, online where the VM runs and its agent can, else at the
// next start. Pending tells.
func (m *Manager) Set(ctx context.Context, ref string, how api.SetVM) (api.VM, error) {
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.VM{}, err
	}
	if _, err := gate(verbSet, rec.Name, m.status(rec)); err != nil {
		return api.VM{}, err
	}
	if err := m.checkSet(rec, how); err != nil {
		return api.VM{}, err
	}
	if how.Image != "" {
		if err := m.keepsImage(rec); err != nil { // at the door already: a pull may take long
			return api.VM{}, err
		}
	}
	if how.Image == "" && !changes(rec, how) {
		return m.view(rec), nil
	}
	op, err := m.d.Operations.Begin(ctx, kindSet, rec.ID, verbParams{ID: rec.ID, Ref: ref, Set: &how})
	if err != nil {
		return api.VM{}, err
	}
	done, err := m.d.Operations.Wait(ctx, op.ID())
	if err != nil {
		return api.VM{}, err
	}
	if done.Error != nil {
		return api.VM{}, done.Error
	}
	now, err := m.shown(ctx, rec, true)
	if how.Image != "" {
		var was api.VM
		if json.Unmarshal(done.Result, &was) == nil {
			now.Changed = was.Changed
		}
	}
	return now, err
}

// checkSet refuses what cannot be done, everything that is missing at once,
// before any of it is.
func (m *Manager) checkSet(rec store.VM, how api.SetVM) error {
	if how.VCPUs != nil {
		if err := m.checkVCPUs(*how.VCPUs); err != nil {
			return err
		}
	}
	if how.MemoryBytes != nil {
		if err := m.checkMemory(*how.MemoryBytes); err != nil {
			return err
		}
	}
	if err := checkLabels(how.Labels); err != nil {
		return err
	}
	if how.Pull = first(how.Pull, "missing"); !oneOf([]string{"missing", "always", "never"}, how.Pull) {
		return api.Errorf(api.KindInvalid, "cannot set vm %q: pull policy %q is not one of missing, always, never", rec.Name, how.Pull)
	}
	grow := false
	for _, d := range []struct {
		what string
		want *int64
		have int64
	}{{"disk", how.DiskBytes, rec.DiskBytes}, {"system overlay", how.SystemOverlayBytes, rec.SystemOverlayBytes}} {
		if d.want == nil {
			continue
		}
		if err := checkDisk(d.what, *d.want); err != nil {
			return err
		}
		if *d.want < d.have {
			return api.Errorf(api.KindInvalid, "cannot shrink the %s of vm %q from %s to %s: what lies beyond would be lost", d.what, rec.Name, bytesText(d.have), bytesText(*d.want)).
				WithHint("banger vm create --disk-size %s", bytesText(*d.want))
		}
		grow = grow || *d.want > d.have
	}
	if !grow {
		return nil
	}
	if err := m.disksWhole("grow the disks of", rec, m.d.Layout.VM(rec.ID)); err != nil {
		return err
	}
	return m.prerequisites("grow the disks of", vmTitle(rec.Name), 0, toolCheckExt4, toolResizeExt4)
}

// apply makes the record say what was asked.
func apply(v *store.VM, how api.SetVM) {
	if how.VCPUs != nil {
		v.VCPUs = *how.VCPUs
	}
	if how.MemoryBytes != nil {
		v.MemoryBytes = *how.MemoryBytes
	}
	if how.DiskBytes != nil {
		v.DiskBytes = max(v.DiskBytes, *how.DiskBytes)
	}
	if how.SystemOverlayBytes != nil {
		v.SystemOverlayBytes = max(v.SystemOverlayBytes, *how.SystemOverlayBytes)
	}
	for k, val := range how.Labels {
		if val == "" {
			delete(v.Labels, k)
			continue
		}
		if v.Labels == nil {
			v.Labels = map[string]string{}
		}
		v.Labels[k] = val
	}
}

func changes(rec store.VM, how api.SetVM) bool {
	if how.VCPUs != nil && *how.VCPUs != rec.VCPUs || how.MemoryBytes != nil && *how.MemoryBytes != rec.MemoryBytes ||
		how.DiskBytes != nil && *how.DiskBytes != rec.DiskBytes ||
		how.SystemOverlayBytes != nil && *how.SystemOverlayBytes != rec.SystemOverlayBytes {
		return true
	}
	for k, v := range how.Labels {
		if have, ok := rec.Labels[k]; v == "" && ok || v != "" && have != v {
			return true
		}
	}
	return false
}

// doSet writes the record first: a disk smaller than its record is grown at
// the next start, whatever happens here.
func (m *Manager) doSet(ctx context.Context, op *operation.Op, p verbParams) error {
	mc := m.machine(p.ID)
	if err := mc.acquire(ctx); err != nil {
		return err
	}
	defer mc.release()
	rec, err := m.d.Store.VM(ctx, p.ID)
	if err != nil {
		return err
	}
	if _, err := gate(verbSet, rec.Name, m.status(rec)); err != nil {
		return err
	}
	var move move
	if op.Get(noteMove, &move) {
		if err := m.keepsImage(rec); err != nil { // it may have started meanwhile
			return err
		}
	}
	changed := move.Image.ID != "" && move.Image.ID != rec.ImageID || changes(rec, *p.Set)
	dir, root := m.d.Layout.VM(p.ID), m.rootOf(rec.RootDisk)
	if more := p.Set.SystemOverlayBytes; more != nil && root.small(root.file(dir), *more) {
		if err := root.reserve(root.file(dir), *more); err != nil {
			return err
		}
	}
	rec, err = m.d.Store.UpdateVM(ctx, p.ID, func(v *store.VM) error {
		apply(v, *p.Set)
		move.apply(v)
		return nil
	})
	if err != nil {
		return err
	}
	if path := root.file(dir); root.small(path, rec.SystemOverlayBytes) {
		op.Stage("growing the " + guestapi.RoleSystem + " disk")
		err := m.grow(ctx, mc, guestapi.RoleSystem, rec.SystemOverlayBytes, !root.own(), func() error { return root.grow(ctx, path, rec.SystemOverlayBytes) })
		if err != nil {
			return err
		}
	}
	if path := dir.WorkDisk(); grows(path, rec.DiskBytes) {
		op.Stage("growing the " + guestapi.RoleWork + " disk")
		err := m.grow(ctx, mc, guestapi.RoleWork, rec.DiskBytes, true, func() error { return m.d.Host.GrowExt4(ctx, path, rec.DiskBytes) })
		if err != nil {
			return err
		}
	}
	if !changed && !op.TakenUp() {
		return m.result(ctx, op, p.ID, false)
	}
	m.event("vm.changed", rec, nil)
	return m.result(ctx, op, p.ID, true)
}

// grow enlarges one disk: offline when nothing runs, online when its file system
// can and the VMM can be told; else it stays for the next start, and Pending says so.
func (m *Manager) grow(ctx context.Context, mc *machine, role string, bytes int64, online bool, offline func() error) error {
	r := mc.current()
	if r == nil {
		return offline()
	}
	vmm, ok := mc.keeperOf(r).(resizer)
	if !ok || !online {
		return nil
	}
	limited, stop := r.until(ctx, m.times.Grow) // a machine that hangs can still be stopped
	defer stop()
	err := growOnline(limited, mc, vmm, role, bytes)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = api.Errorf(api.KindTimeout, "cannot grow the %s disk: the vm does not answer", role)
	}
	if e := *api.AsError(err); e.Kind == api.KindTimeout && e.Hint == "" {
		e.Hint = "banger vm stop " + mc.id
		return &e
	}
	return err
}

// growOnline tells the VMM, and then the guest, that the disk has grown.
func growOnline(ctx context.Context, mc *machine, vmm resizer, role string, bytes int64) error {
	if err := vmm.Resize(ctx, role, bytes); err != nil {
		if api.KindOf(err) == api.KindUnsupported {
			return nil
		}
		return err
	}
	guest, _ := mc.guest()
	if guest == nil {
		return api.Errorf(api.KindBadState, "cannot grow the %s disk: the vm ended", role)
	}
	// The guest's kernel hears of the new size a moment later.
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for range 100 {
		reply, err := guest.Grow(ctx, role)
		if err != nil || reply.Bytes >= bytes {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return api.Errorf(api.KindGuest, "cannot grow the %s disk: the guest did not notice its new size; it does at its next start", role)
}

package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// reasonReboot is the reason of an end that came with the host's.
const reasonReboot vmm.Reason = "host-restart"

// attachPatience is how long a keeper may take to answer a new daemon.
const attachPatience = 3 * time.Second

// Recover finds out what became of all machines since the last daemon: those
// that run are adopted, the others marked stopped with the reason. It is called
// once, before Operations.Recover, which then finishes or undoes what was
// half-done. A VM that cannot be recovered is logged, and holds up no other.
func (m *Manager) Recover(ctx context.Context) error {
	all, err := m.d.Store.VMs(ctx)
	if err != nil {
		return err
	}
	busy, err := m.unfinished(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var wg sync.WaitGroup
	gate := make(chan struct{}, 16)
	for _, rec := range all {
		known[rec.ID] = true
		wg.Add(1)
		gate <- struct{}{}
		go func() {
			defer func() { <-gate; wg.Done() }()
			if err := m.recoverVM(ctx, rec, busy[rec.ID]); err != nil {
				m.d.Log.Error("cannot recover the vm", "vm", rec.ID, "name", rec.Name, "error", err)
			}
		}()
	}
	wg.Wait()
	return m.sweep(ctx, known)
}

// unfinished are the targets of operations the last daemon left, and what
// they were.
func (m *Manager) unfinished(ctx context.Context) (map[string]string, error) {
	ops, err := m.d.Operations.List(ctx, operation.Filter{Status: api.OperationRunning})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, op := range ops {
		out[op.Target] = op.Kind
	}
	return out, nil
}

func (m *Manager) recoverVM(ctx context.Context, rec store.VM, busy string) error {
	if err := safeID(rec.ID); err != nil {
		return err
	}
	mc := m.machine(rec.ID)
	dir := m.d.Layout.VM(rec.ID)
	h, known := readHandle(dir, rec.ID)
	k, err := m.attach(ctx, dir, h)
	if err == nil {
		return m.readopt(ctx, mc, rec, dir, h, k, busy)
	}
	if api.KindOf(err) != api.KindNotFound {
		_, note := m.d.Store.UpdateVM(ctx, rec.ID, func(v *store.VM) error {
			v.Status = api.StatusBroken
			v.Error = api.Errorf(api.KindInternal, "cannot reach the keeper of vm %q: %w", v.Name, err).WithHint("banger vm logs %s --console", v.Name)
			return nil
		})
		return both(err, note)
	}
	if err := m.clearAfterKeeper(dir, rec.ID); err != nil {
		m.d.Log.Warn("cannot clear up after the keeper of the vm", "vm", rec.ID, "error", err)
	}
	if err := m.rootOf(rec.RootDisk).release(ctx, rec.ID); err != nil {
		// The next start or deletion tries again, and tells its caller.
		m.d.Log.Error("cannot let go of the root disk of the vm", "vm", rec.ID, "error", err)
	}
	if rec.Status == api.StatusBroken || busy == kindCreate || busy == kindDelete {
		return nil
	}
	if rec.Status == api.StatusCreating || rec.Status == api.StatusDeleting {
		// No operation is left that would see to it.
		return m.remove(ctx, rec.ID, "left over")
	}
	if rec.Status != api.StatusStopped {
		exit, said := readExit(dir)
		switch {
		case said:
		case known && h.HostBoot != m.d.Host.BootID():
			exit = vmm.Exit{Reason: reasonReboot}
		default:
			exit = vmm.Exit{Reason: reasonKeeper}
		}
		c := causeNone
		if busy == kindStop || busy == kindRestart {
			c = causeStop
		}
		if rec, err = m.recordEnd(ctx, rec.ID, exit, c, ""); err != nil {
			return err
		}
		m.event("vm.stopped", rec, map[string]string{"reason": reasonText(exit, c)})
	}
	if err := removeFiles(dir.Handle()); err != nil {
		m.d.Log.Warn("cannot remove the handle of the vm", "vm", rec.ID, "error", err)
	}
	if rec.AutoRemove {
		return m.remove(ctx, rec.ID, "auto-remove")
	}
	if rec.End == "" {
		return nil
	}
	_, err = m.d.Store.UpdateVM(ctx, rec.ID, func(v *store.VM) error { v.End = ""; return nil })
	return err
}

// attach finds the keeper of the VM. One that lives but does not answer is
// killed, its VMM with it; then it is not found like one that died.
func (m *Manager) attach(ctx context.Context, dir layout.VMDir, h handle) (Keeper, error) {
	look, cancel := context.WithTimeout(ctx, attachPatience)
	k, err := m.d.Keepers.Attach(look, dir)
	cancel()
	if err == nil || ctx.Err() != nil || !m.keeperAlive(h) {
		return k, err
	}
	m.d.Log.Warn("killing a keeper that does not answer", "vm", h.VMID, "pid", h.KeeperPID, "error", err)
	if err := m.d.Host.Signal(h.KeeperPID, h.KeeperStart, 9); err != nil {
		return nil, err
	}
	for range 100 {
		if !m.keeperAlive(h) {
			return nil, api.Errorf(api.KindNotFound, "its keeper did not answer and was killed")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, api.Errorf(api.KindInternal, "its keeper %d neither answers nor ends", h.KeeperPID)
}

// readopt takes a running machine over from the last daemon, or ends it where
// its run was to end with that daemon.
func (m *Manager) readopt(ctx context.Context, mc *machine, rec store.VM, dir layout.VMDir, h handle, k Keeper, busy string) error {
	h.VMID, h.HostBoot = rec.ID, m.d.Host.BootID()
	h.RootDisk = rec.RootDisk
	h.Driver, h.Accelerator = first(h.Driver, rec.UsedDriver), first(h.Accelerator, rec.UsedAccelerator)
	if h.StartedAt.IsZero() && rec.StartedAt != nil {
		h.StartedAt = *rec.StartedAt
	}
	r := &running{keeper: k, guest: m.d.Guest(k), handle: h, gone: make(chan struct{})}
	if err := m.adopt(ctx, mc, r, dir); err != nil {
		m.d.Log.Warn("adopted a vm without its handle", "vm", rec.ID, "error", err)
	}
	if busy == kindCreate || busy == kindDelete {
		return nil // their operation takes it away
	}
	if rec.Status == api.StatusDeleting || rec.Status == api.StatusCreating {
		return m.remove(ctx, rec.ID, "left over")
	}
	switch {
	case rec.End == api.EndRemove:
		return m.remove(ctx, rec.ID, "run ended")
	case rec.End == api.EndStop:
		m.spawn(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, runPatience)
			defer cancel()
			if err := m.stopAfterRun(ctx, mc); err != nil {
				m.d.Log.Error("cannot stop the vm of a run that outlived its daemon", "vm", rec.ID, "error", err)
			}
		})
	}
	if rec.Status != api.StatusRunning {
		if _, err := m.d.Store.UpdateVM(ctx, rec.ID, func(v *store.VM) error {
			v.Status, v.StoppedAt, v.Error = api.StatusRunning, nil, nil
			return nil
		}); err != nil {
			return err
		}
	}
	m.event("vm.adopted", rec, nil)
	m.spawn(func(ctx context.Context) {
		ctx, stop := r.until(ctx, m.times.ReadyTCG)
		defer stop()
		g, _ := mc.guest()
		if g == nil {
			return
		}
		said, err := health(ctx, g)
		if err != nil {
			m.d.Log.Warn("the guest of an adopted vm does not answer", "vm", rec.ID, "error", err)
			return
		}
		mc.update(func() { r.ready, r.health = true, said })
	})
	return nil
}

// sweep looks for folders of VMs that have no record. What may hold somebody's
// disks is only told of: a lost store must not cost the disks as well. A mere
// folder of sockets goes.
func (m *Manager) sweep(ctx context.Context, known map[string]bool) error {
	for _, parent := range []string{m.d.Layout.VMs(), filepath.Dir(m.d.Layout.VM("x").Run)} {
		entries, err := os.ReadDir(parent)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return api.Errorf(diskKind(err), "cannot look for left-over vms: %w", err)
		}
		for _, e := range entries {
			if id := e.Name(); !known[id] {
				known[id] = true
				m.sweepOne(ctx, id)
			}
		}
	}
	return nil
}

func (m *Manager) sweepOne(ctx context.Context, id string) {
	dir := m.d.Layout.VM(id)
	if _, err := os.Lstat(dir.State); err == nil {
		m.d.Log.Warn("left alone a folder of no known vm", "folder", dir.State)
		return
	}
	h, _ := readHandle(dir, id)
	if _, err := m.attach(ctx, dir, h); api.KindOf(err) != api.KindNotFound {
		m.d.Log.Warn("left alone a keeper of no known vm", "folder", dir.Run)
		return
	}
	if err := both(m.clearAfterKeeper(dir, id), os.RemoveAll(dir.Run)); err != nil {
		m.d.Log.Warn("cannot remove the sockets of no known vm", "folder", dir.Run, "error", err)
	}
}

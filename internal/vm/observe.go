package vm

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// adopt takes a machine that runs under its keeper into memory, the handle
// file first, and watches it from then on.
func (m *Manager) adopt(ctx context.Context, mc *machine, r *running, dir layout.VMDir) error {
	s, err := r.keeper.State(ctx)
	if err == nil {
		r.handle.KeeperPID, r.handle.VMMPID = s.PID, s.VMMPID
		r.handle.KeeperStart, _ = m.d.Host.ProcessStart(s.PID)
		err = writeHandle(dir, r.handle)
	}
	mc.update(func() { mc.run = r })
	m.spawn(func(ctx context.Context) { m.watch(ctx, mc, r, dir) })
	return err
}

// watch follows one life of a machine and records its end. When the daemon
// leaves it lets go: the machine runs on.
func (m *Manager) watch(ctx context.Context, mc *machine, r *running, dir layout.VMDir) {
	for {
		k := mc.keeperOf(r)
		look, stop := context.WithCancel(ctx)
		var looking sync.WaitGroup
		looking.Go(func() { m.watchWaits(look, mc, r, k) })
		select {
		case <-ctx.Done():
		case <-k.Done():
		}
		stop()
		looking.Wait()
		if ctx.Err() != nil {
			return
		}
		if exit, ok := k.Exit(); ok {
			m.ended(mc, r, dir, exit)
			return
		}
		if !m.reattach(ctx, mc, r, dir) {
			if ctx.Err() != nil {
				return
			}
			exit, ok := k.Exit()
			if !ok {
				exit = vmm.Exit{Reason: reasonKeeper, At: m.now()}
			}
			m.ended(mc, r, dir, exit)
			return
		}
	}
}

// watchWaits takes note of what the guest waits for on the host, and tells of it.
func (m *Manager) watchWaits(ctx context.Context, mc *machine, r *running, k Keeper) {
	states, err := k.Watch(ctx)
	if err != nil {
		return // its end, or a keeper of before that the daemon finds again
	}
	for s := range states {
		mc.mu.Lock()
		before := r.waits
		mc.mu.Unlock()
		if s.Waits == before {
			continue
		}
		mc.update(func() { r.waits = s.Waits })
		// What was shown is told, also when the machine is stopped right after.
		rec, err := m.d.Store.VM(context.WithoutCancel(ctx), mc.id)
		switch {
		case err != nil:
		case s.Waits == "":
			m.event("vm.goes-on", rec, nil)
		default:
			m.event("vm.waits", rec, map[string]string{"reason": s.Waits})
		}
	}
}

// reasonKeeper is the reason of an end the keeper could not tell any more.
const reasonKeeper vmm.Reason = "keeper-died"

// reattach finds a keeper that lives although its connection broke. One that
// lives but does not answer is killed, and its VMM with it: nobody could stop
// that machine any more.
func (m *Manager) reattach(ctx context.Context, mc *machine, r *running, dir layout.VMDir) bool {
	for try := 0; m.keeperAlive(r.handle); try++ {
		look, cancel := context.WithTimeout(ctx, time.Second)
		k, err := m.d.Keepers.Attach(look, dir)
		cancel()
		if err == nil {
			g := m.d.Guest(k)
			mc.update(func() {
				_ = r.guest.Close()
				r.keeper, r.guest = k, g
			})
			return true
		}
		if try == 50 {
			m.d.Log.Warn("killing a keeper that does not answer", "vm", mc.id, "pid", r.handle.KeeperPID, "error", err)
			if err := m.d.Host.Signal(r.handle.KeeperPID, r.handle.KeeperStart, syscall.SIGKILL); err != nil {
				m.d.Log.Error("cannot kill the keeper", "vm", mc.id, "error", err)
				return false
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return false
}

func (m *Manager) keeperAlive(h handle) bool {
	start, ok := m.d.Host.ProcessStart(h.KeeperPID)
	return ok && h.KeeperPID > 0 && start == h.KeeperStart
}

func (mc *machine) blamed(r *running) cause {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	return r.cause
}

// ended records the end of one life of a machine: its record, its event, and
// last the word to those who wait for it.
func (m *Manager) ended(mc *machine, r *running, dir layout.VMDir, exit vmm.Exit) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	mc.mu.Lock()
	c, detail, leased := r.cause, r.detail, mc.leased
	r.exit = exit
	mc.mu.Unlock()
	var rec store.VM
	var err error
	if c != causeRemove && c != causeBoot {
		rec, err = m.recordEnd(ctx, mc.id, exit, c, detail)
		if err != nil {
			m.d.Log.Error("cannot record the end of the vm", "vm", mc.id, "reason", exit.Reason, "error", err)
		}
	}
	if exit.Reason == reasonKeeper {
		if err := m.clearAfterKeeper(dir, mc.id); err != nil {
			m.d.Log.Error("cannot clear up after a keeper that died", "vm", mc.id, "error", err)
		}
	}
	if c != causeRemove {
		if err := removeFiles(dir.Handle()); err != nil {
			m.d.Log.Warn("cannot remove the handle of the vm", "vm", mc.id, "error", err)
		}
	}
	_ = r.guest.Close() // its link is dead already
	if err := m.rootOf(r.handle.RootDisk).release(ctx, mc.id); err != nil {
		// The next start or deletion tries again, and tells its caller.
		m.d.Log.Error("cannot let go of the root disk of the vm", "vm", mc.id, "error", err)
	}
	mc.update(func() { mc.run = nil })
	close(r.gone)
	if c == causeRemove || c == causeBoot || err != nil {
		return
	}
	m.event("vm.stopped", rec, map[string]string{"reason": reasonText(exit, c), "detail": clip(exit.Detail, 500)})
	if rec.AutoRemove && !leased {
		m.spawn(func(ctx context.Context) { m.removeLater(ctx, mc.id) })
	}
}

// clearAfterKeeper removes what a keeper removes itself when it is not killed: the
// VMM's control group, with a VMM that should still be in it, and its folder.
func (m *Manager) clearAfterKeeper(dir layout.VMDir, id string) error {
	return both(m.d.Host.RemoveGroup(id), os.RemoveAll(dir.VMMFolder()))
}

// recordEnd writes down that and why the VM stopped.
func (m *Manager) recordEnd(ctx context.Context, id string, exit vmm.Exit, c cause, detail string) (store.VM, error) {
	return m.d.Store.UpdateVM(ctx, id, func(v *store.VM) error {
		at := exit.At.UTC()
		if exit.At.IsZero() {
			at = m.now()
		}
		if v.Status != api.StatusBroken && v.Status != api.StatusDeleting {
			v.Status = api.StatusStopped
		}
		v.StoppedAt = &at
		switch {
		case detail != "":
			v.Error = api.Errorf(api.KindTimeout, "%s", detail)
		case c == causeNone:
			v.Error = fate(v.Name, exit)
		default:
			v.Error = nil
		}
		return nil
	})
}

func reasonText(exit vmm.Exit, c cause) string {
	if c == causeNone {
		return string(exit.Reason)
	}
	return string(c)
}

// fate is the error of a VM that nobody asked to end.
func fate(name string, exit vmm.Exit) *api.Error {
	kind := api.KindInternal
	switch exit.Reason {
	case vmm.ReasonPowerOff, vmm.ReasonReset, vmm.ReasonPanic:
		kind = api.KindGuest
	}
	e := api.Errorf(kind, "vm %q ended: %s", name, fateText(exit, causeNone))
	if exit.Reason == vmm.ReasonPowerOff {
		return e.WithHint("banger vm start %s", name)
	}
	return e.WithHint("banger vm logs %s --console", name)
}

// fateText says how a machine ended.
func fateText(exit vmm.Exit, c cause) string {
	switch c {
	case causeKill:
		return "it was killed"
	case causeStop:
		return "it was stopped"
	case causeRemove:
		return "it was deleted"
	}
	detail := ""
	if d := oneLine(exit.Detail); d != "" {
		detail = ": " + d
	}
	switch exit.Reason {
	case vmm.ReasonPowerOff:
		return "the guest powered itself off"
	case vmm.ReasonReset:
		return "the guest restarted itself, which ends a vm"
	case vmm.ReasonPanic:
		return "the guest's kernel panicked" + detail
	case vmm.ReasonKilled:
		return "its vmm was killed" + detail
	case vmm.ReasonCrashed:
		return "its vmm crashed" + detail
	case reasonKeeper:
		return "its keeper died"
	case reasonReboot:
		return "the host was restarted"
	}
	return fmt.Sprintf("its vmm ended (%s)%s", oneLine(string(exit.Reason)), detail)
}

// put ends a running machine at once, for the cause, and waits until that is
// recorded. The keeper is asked first, then killed.
func (m *Manager) put(ctx context.Context, mc *machine, r *running, c cause) error {
	mc.blame(r, c, "")
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.times.Gone)
	err := mc.keeperOf(r).Kill(ask)
	cancel()
	if err == nil {
		select {
		case <-r.gone:
			return nil
		case <-time.After(m.times.Gone):
		}
	}
	select {
	case <-r.gone: // it was gone before we asked
		return nil
	default:
	}
	if m.keeperAlive(r.handle) {
		if kill := m.d.Host.Signal(r.handle.KeeperPID, r.handle.KeeperStart, syscall.SIGKILL); kill != nil {
			return api.Errorf(api.KindInternal, "cannot kill vm %s: its keeper %d does not heed: %w", mc.id, r.handle.KeeperPID, kill)
		}
	}
	select {
	case <-r.gone:
		return nil
	case <-time.After(m.times.Gone):
		return api.Errorf(api.KindInternal, "cannot kill vm %s: its keeper %d does not end", mc.id, r.handle.KeeperPID)
	}
}

// lastWords is what the agent said on the console when it gave up, or the
// kernel when it panicked; empty when neither did.
func lastWords(console string) string {
	tail := readTail(console, 16<<10)
	return findLastWords(tail)
}

func readTail(path string, n int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil
	}
	off := max(0, fi.Size()-n)
	b := make([]byte, min(n, fi.Size()))
	k, _ := f.ReadAt(b, off) // a short tail is a tail
	return b[:k]
}

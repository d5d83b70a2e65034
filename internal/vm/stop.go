package vm

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// maxGrace is how long processes get between TERM and KILL, at most: an
// interactive shell ignores TERM, and nobody wants to wait for it.
const maxGrace = 5 * time.Second

// Stop ends a VM in order: its processes get TERM and KILL, its disks are
// flushed and unmounted, the power goes off. After the time-out it is killed,
// which the VM's error then says.
func (m *Manager) Stop(ctx context.Context, ref string, how api.StopVM) (api.Operation, error) {
	if how.TimeoutMS < 0 {
		return api.Operation{}, api.Errorf(api.KindInvalid, "cannot stop vm %q: a time-out of %d ms is negative", ref, how.TimeoutMS)
	}
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.Operation{}, err
	}
	return m.begin(ctx, kindStop, verbStop, rec, verbParams{Ref: ref, TimeoutMS: how.TimeoutMS})
}

func (m *Manager) doStop(ctx context.Context, op *operation.Op, p verbParams) error {
	h, err := m.hold(ctx, op.ID(), verbStop, p.ID, api.StatusStopping)
	if err != nil {
		return err
	}
	// The result is taken under the lock: a VM that removes itself goes after.
	defer h.mc.release()
	defer h.leave()
	r := h.mc.current()
	if h.verdict == nothing || r == nil {
		h.leave()
		return m.result(ctx, op, p.ID, op.TakenUp())
	}
	if err := m.shutdown(ctx, h.mc, r, h.rec, time.Duration(p.TimeoutMS)*time.Millisecond, op.Stage); err != nil {
		return err
	}
	h.leave()
	return m.result(ctx, op, p.ID, true)
}

// shutdown ends a running machine in order, within the time-out or else by
// force, and returns when its end is recorded. The caller holds its lock. A
// cancelled ctx leaves it to the guest whether it still powers off.
func (m *Manager) shutdown(ctx context.Context, mc *machine, r *running, rec store.VM, limit time.Duration, stage func(string)) error {
	if limit == 0 {
		limit = m.stopLimit(rec, r.handle.Accelerator)
	}
	m.saveLastUsed(ctx, mc)
	mc.blame(r, causeStop, "")
	end := time.NewTimer(limit)
	defer end.Stop()
	stage("asking the guest to shut down")
	ask, stop := r.until(ctx, limit)
	defer stop()
	guest, _ := mc.guest()
	if guest == nil {
		<-r.gone
		return nil
	}
	reply, err := guest.Shutdown(ask, guestapi.Shutdown{GraceMS: min(limit/2, maxGrace).Milliseconds()})
	if err == nil {
		// The disks are clean: what is left is the power, which we can cut too.
		stage("powering off")
		select {
		case <-r.gone:
			return nil
		case <-time.After(min(limit, 2*time.Second)):
			if len(reply.Warnings) > 0 {
				m.d.Log.Warn("the guest shut down with warnings", "vm", mc.id, "warnings", strings.Join(reply.Warnings, "; "))
			}
			return m.put(ctx, mc, r, causeStop)
		}
	}
	why := err.Error()
	if ctx.Err() == nil {
		select {
		case <-r.gone:
			return nil
		case <-end.C:
		case <-time.After(200 * time.Millisecond):
			stage("pressing the power button: " + oneLine(why))
			if err := mc.keeperOf(r).PowerButton(ask); err != nil {
				why += "; " + err.Error()
			}
			select {
			case <-r.gone:
				return nil
			case <-end.C:
			case <-ctx.Done():
			}
		}
	}
	if ctx.Err() != nil {
		return api.Errorf(api.KindCancelled, "cannot stop vm %q: %w", rec.Name, context.Cause(ctx))
	}
	detail := fmt.Sprintf("vm %q did not shut down within %s and was killed", rec.Name, limit)
	stage(detail)
	mc.blame(r, causeStop, detail)
	return m.put(ctx, mc, r, causeStop)
}

// stopLimit is how long an orderly stop may take, when the caller says nothing.
func (m *Manager) stopLimit(rec store.VM, accelerator string) time.Duration {
	limit := m.times.Stop
	if accelerator == string(vmm.TCG) {
		limit = m.times.StopTCG
	}
	if rec.Init == initImage { // a set of services, each with a time-out of its own
		limit = m.times.StopInit
	}
	return limit + flushTime(rec)
}

// maxFlush bounds what a stop is prolonged by.
const maxFlush = 10 * time.Minute

// flushTime is how much longer what the guest has not written yet may take, where
// its disks are limited: to kill it then would lose that. Linux lets a fifth of the
// memory wait; how much goes with one operation, 4 to 512 KiB, is a guess.
func flushTime(rec store.VM) time.Duration {
	const operation = 64 << 10
	l := rec.Limits
	if l == nil || l.DiskBytesPerSecond == 0 && l.DiskOperationsPerSecond == 0 {
		return 0
	}
	perSecond := l.DiskBytesPerSecond
	if by := l.DiskOperationsPerSecond * operation; by > 0 && (perSecond == 0 || by < perSecond) {
		perSecond = by
	}
	return min(time.Duration(rec.MemoryBytes/4/perSecond)*time.Second, maxFlush)
}

// signals are those a VMM may be sent.
var signals = map[string]syscall.Signal{
	"": syscall.SIGKILL, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT,
	"HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT,
}

// Kill ends the VM's VMM at once, with no word to the guest. Another signal
// than KILL is sent, and its effect not waited for long.
func (m *Manager) Kill(ctx context.Context, ref string, how api.KillVM) (api.VM, error) {
	sig, ok := signals[strings.TrimPrefix(strings.ToUpper(how.Signal), "SIG")]
	if !ok {
		return api.VM{}, api.Errorf(api.KindInvalid, "cannot kill vm %q: %q is not a signal it takes, want KILL, TERM, INT, HUP or QUIT", ref, how.Signal).
			WithHint("banger vm kill --help")
	}
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.VM{}, err
	}
	d, err := gate(verbKill, rec.Name, m.status(rec))
	if err != nil {
		return api.VM{}, err
	}
	mc := m.machine(rec.ID)
	r := mc.current()
	if d == nothing || r == nil && d == allow {
		return m.view(rec), nil
	}
	if sig != syscall.SIGKILL {
		return m.signal(ctx, rec, mc, r, sig)
	}
	if r != nil {
		if err := m.put(ctx, mc, r, causeKill); err != nil {
			return api.VM{}, err
		}
	}
	if d == preempt {
		if err := m.preempt(ctx, rec.ID); err != nil {
			return api.VM{}, err
		}
	}
	return m.shown(ctx, rec, true)
}

func (m *Manager) signal(ctx context.Context, rec store.VM, mc *machine, r *running, sig syscall.Signal) (api.VM, error) {
	if r == nil {
		return api.VM{}, api.Errorf(api.KindBadState, "cannot kill vm %q: its vmm does not run yet", rec.Name).WithHint("banger vm wait %s --for running", rec.Name)
	}
	start, ok := m.d.Host.ProcessStart(r.handle.VMMPID)
	if !ok {
		return api.VM{}, api.Errorf(api.KindBadState, "cannot kill vm %q: its vmm is gone", rec.Name).WithHint("banger vm show %s", rec.Name)
	}
	mc.blame(r, causeKill, "")
	if err := m.d.Host.Signal(r.handle.VMMPID, start, sig); err != nil {
		return api.VM{}, api.Errorf(api.KindInternal, "cannot kill vm %q: %w", rec.Name, err)
	}
	select {
	case <-r.gone:
	case <-time.After(2 * time.Second):
		mc.unblame(r, causeKill)
	case <-ctx.Done():
	}
	return m.shown(ctx, rec, true)
}

// unblame takes back a cause that did not come true.
func (mc *machine) unblame(r *running, c cause) {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	if r.cause == c {
		r.cause = causeNone
	}
}

// shown is the VM as it is now, or as it was last when it has removed itself.
func (m *Manager) shown(ctx context.Context, rec store.VM, changed bool) (api.VM, error) {
	now, err := m.d.Store.VM(ctx, rec.ID)
	switch {
	case err == nil:
		rec = now
	case api.KindOf(err) != api.KindNotFound:
		return api.VM{}, err
	}
	v := m.view(rec)
	v.Changed = changed
	return v, nil
}

package vm

import (
	"context"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
)

// machine is what the manager holds of one VM in memory.
type machine struct {
	id   string
	lock chan struct{} // the machine's lock: one verb at a time

	mu       sync.Mutex // leaf; guards what follows
	phase    api.Status // what a verb is doing to it now; empty: nothing
	op       string     // the operation that does it
	run      *running   // nil when no VMM runs
	leased   bool       // a run is in charge of its end
	removed  bool
	lastUsed time.Time
	changed  chan struct{} // closed and replaced at each change
}

// running is one life of a machine, from launch to the keeper's end. The
// pointers keeper and guest are replaced under the machine's mu when the
// keeper had to be found again.
type running struct {
	keeper Keeper
	guest  Guest
	handle handle
	ready  bool
	health guestapi.Health // the guest's own word after its boot; zero until it came
	waits  string          // why the guest stands still though nobody paused it
	cause  cause
	detail string        // what the verb that ended it has to say
	gone   chan struct{} // closed when its end is recorded
	exit   vmm.Exit
}

// cause is which of our own verbs ended a machine.
type cause string

const (
	causeNone   cause = ""       // none: the guest, the VMM or the keeper did
	causeStop   cause = "stop"   // recorded as stopped
	causeKill   cause = "kill"   // recorded as stopped
	causeBoot   cause = "boot"   // the boot failed; boot records it
	causeRemove cause = "remove" // the record goes too
)

func newMachine(id string) *machine {
	return &machine{id: id, lock: make(chan struct{}, 1), changed: make(chan struct{})}
}

// acquire takes the machine's lock, or gives up with ctx.
func (mc *machine) acquire(ctx context.Context) error {
	select {
	case mc.lock <- struct{}{}:
		return nil
	default:
	}
	select {
	case mc.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return api.Errorf(api.KindCancelled, "cannot wait for vm %s: %w", mc.id, context.Cause(ctx))
	}
}

func (mc *machine) release() { <-mc.lock }

// update changes the machine under its leaf lock and wakes those who wait.
func (mc *machine) update(f func()) {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	f()
	close(mc.changed)
	mc.changed = make(chan struct{})
}

// enter says what a verb begins to do; the returned func ends it.
func (mc *machine) enter(phase api.Status, op string) func() {
	mc.update(func() { mc.phase, mc.op = phase, op })
	return func() {
		mc.update(func() {
			if mc.op == op {
				mc.phase, mc.op = "", ""
			}
		})
	}
}

func (mc *machine) current() *running {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	return mc.run
}

// guest is the agent of a running machine, nil when none runs.
func (mc *machine) guest() (Guest, *running) {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	if mc.run == nil {
		return nil, nil
	}
	return mc.run.guest, mc.run
}

func (mc *machine) keeperOf(r *running) Keeper {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	return r.keeper
}

// blame notes why the machine is about to end. The first to say so is right,
// but a removal outranks all.
func (mc *machine) blame(r *running, c cause, detail string) {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	if r.cause == causeNone || c == causeRemove {
		r.cause = c
	}
	if detail != "" {
		r.detail = detail
	}
}

func (mc *machine) touch(t time.Time) {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	mc.lastUsed = t
}

// until gives a context that ends with ctx, at the limit, or when the machine
// is gone; stop releases it.
func (r *running) until(ctx context.Context, limit time.Duration) (_ context.Context, stop func()) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-r.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-watched }
}

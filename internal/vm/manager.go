package vm

import (
	"context"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// Manager owns every machine of one root. Make it with New, call Recover once
// before serving, and Close when the daemon leaves: the machines run on.
type Manager struct {
	d     Deps
	times Timing

	// life ends at Close; every goroutine of the manager runs under it and in
	// wait.
	life context.Context
	end  context.CancelFunc
	wait sync.WaitGroup

	// reserving is the reservation lock: exact-name check and insert.
	reserving sync.Mutex

	mu       sync.Mutex // leaf
	machines map[string]*machine
	requests map[string]request // by request id: creates under way
	hooks    map[string]*hook   // by VM id: what a run does at the first answer
}

// request is a create under way that carries a request id.
type request struct{ hash, operation, id string }

// New makes a manager and registers its kinds of operations.
func New(d Deps) *Manager {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Guest == nil {
		d.Guest = newGuest
	}
	life, end := context.WithCancel(context.Background())
	m := &Manager{
		d: d, times: d.Timing.withDefaults(), life: life, end: end,
		machines: map[string]*machine{}, requests: map[string]request{}, hooks: map[string]*hook{},
	}
	m.register()
	return m
}

// Close lets go of all machines, which run on, and waits for the manager's
// goroutines as long as ctx allows. The operations are to be closed before.
func (m *Manager) Close(ctx context.Context) error {
	m.end()
	done := make(chan struct{})
	go func() { m.wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return api.Errorf(api.KindTimeout, "cannot close the vms: %w", ctx.Err())
	}
	m.mu.Lock()
	all := make([]*machine, 0, len(m.machines))
	for _, mc := range m.machines {
		all = append(all, mc)
	}
	m.mu.Unlock()
	for _, mc := range all {
		m.saveLastUsed(ctx, mc)
		if r := mc.current(); r != nil {
			_ = r.guest.Close() // the link is ours alone; nothing to tell anyone
		}
	}
	return nil
}

// spawn runs f in a goroutine that Close waits for.
func (m *Manager) spawn(f func(ctx context.Context)) {
	m.wait.Add(1)
	go func() {
		defer m.wait.Done()
		f(m.life)
	}()
}

// machine is the one in-memory machine of the id.
func (m *Manager) machine(id string) *machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := m.machines[id]
	if mc == nil {
		mc = newMachine(id)
		m.machines[id] = mc
	}
	return mc
}

// forget drops the in-memory machine of a deleted VM.
func (m *Manager) forget(mc *machine) {
	m.mu.Lock()
	delete(m.machines, mc.id)
	m.mu.Unlock()
	mc.update(func() { mc.removed = true })
}

func (m *Manager) event(kind string, rec store.VM, data map[string]string) {
	if m.d.Event == nil {
		return
	}
	if data == nil {
		data = map[string]string{}
	}
	data["name"] = rec.Name
	m.d.Event(kind, rec.ID, data)
}

func (m *Manager) now() time.Time { return m.d.Now().UTC() }

// saveLastUsed writes down when the machine was last used, which exec only
// notes in memory: a command must not wait for the disk.
func (m *Manager) saveLastUsed(ctx context.Context, mc *machine) {
	mc.mu.Lock()
	t := mc.lastUsed
	mc.lastUsed = time.Time{}
	mc.mu.Unlock()
	if t.IsZero() {
		return
	}
	_, err := m.d.Store.UpdateVM(ctx, mc.id, func(rec *store.VM) error {
		if rec.LastUsedAt == nil || rec.LastUsedAt.Before(t) {
			rec.LastUsedAt = &t
		}
		return nil
	})
	if err != nil && api.KindOf(err) != api.KindNotFound {
		m.d.Log.Warn("cannot save when the vm was last used", "vm", mc.id, "error", err)
	}
}

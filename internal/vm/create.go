package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
)

// createParams is what the journal of a create keeps.
type createParams struct {
	ID      string       `json:"id"`
	Request api.CreateVM `json:"request"`
	Hash    string       `json:"hash,omitempty"`
	End     string       `json:"end,omitempty"`
}

// hook is how a run takes part in its VM's start: first is called in place of
// the health check, as soon as the guest's link can be dialled.
type hook struct {
	first func(ctx context.Context, g Guest) error
}

// Create begins the making of a VM. What can be refused is refused at once.
func (m *Manager) Create(ctx context.Context, req api.CreateVM) (api.Operation, error) {
	op, _, err := m.create(ctx, req, "", nil)
	return op, err
}

// create begins the operation and returns it with the id of the VM. hk may be
// nil.
func (m *Manager) create(ctx context.Context, req api.CreateVM, end string, hk *hook) (api.Operation, string, error) {
	req = m.fill(req)
	if err := m.checkCreate(req); err != nil {
		return api.Operation{}, "", err
	}
	p := createParams{ID: newID(), Request: req, End: end}
	if req.RequestID != "" {
		p.Hash = hash(req, end)
		op, id, err := m.again(ctx, p)
		if err != nil || op.ID != "" {
			return op, id, err
		}
		defer m.unclaim(req.RequestID, p.ID)
	}
	if req.Name != "" {
		if _, err := m.findExact(ctx, req.Name); err == nil {
			return api.Operation{}, "", exists(req.Name)
		} else if api.KindOf(err) != api.KindNotFound {
			return api.Operation{}, "", err
		}
	}
	if hk != nil {
		m.mu.Lock()
		m.hooks[p.ID] = hk
		m.mu.Unlock()
	}
	op, err := m.d.Operations.Begin(ctx, kindCreate, p.ID, p)
	if err != nil {
		m.unhook(p.ID)
		return api.Operation{}, "", err
	}
	if req.RequestID != "" {
		m.mu.Lock()
		m.requests[req.RequestID] = request{hash: p.Hash, operation: op.ID(), id: p.ID}
		m.mu.Unlock()
		m.spawn(func(ctx context.Context) {
			_, _ = m.d.Operations.Wait(ctx, op.ID()) // only its end matters here
			m.dropRequest(req.RequestID, op.ID())
		})
	}
	return op.Snapshot(), p.ID, nil
}

func exists(name string) error {
	return api.Errorf(api.KindExists, "cannot create vm %q: the name is taken", name).WithHint("banger vm show %s", name)
}

func (m *Manager) unhook(id string) {
	m.mu.Lock()
	delete(m.hooks, id)
	m.mu.Unlock()
}

// again finds what an earlier request with the same id began or made. With
// none, it claims the id for this one.
func (m *Manager) again(ctx context.Context, p createParams) (api.Operation, string, error) {
	other := api.Errorf(api.KindExists, "cannot create vm: request id %q was used with other parameters", p.Request.RequestID).
		WithHint("banger vm list")
	for {
		m.mu.Lock()
		r, underway := m.requests[p.Request.RequestID]
		if !underway {
			m.requests[p.Request.RequestID] = request{hash: p.Hash, id: p.ID}
		}
		m.mu.Unlock()
		if !underway {
			break
		}
		if r.hash != p.Hash {
			return api.Operation{}, "", other
		}
		if r.operation != "" {
			op, err := m.d.Operations.Get(ctx, r.operation)
			if err != nil || op.FinishedAt == nil {
				return op, r.id, err
			}
			m.dropRequest(p.Request.RequestID, r.operation)
			continue
		}
		// Claimed in this instant by another call that has yet to begin.
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return api.Operation{}, "", api.Errorf(api.KindCancelled, "cannot create vm: %w", ctx.Err())
		}
	}
	rec, err := m.requested(ctx, p.Request.RequestID)
	if api.KindOf(err) == api.KindNotFound {
		return api.Operation{}, "", nil
	}
	defer m.unclaim(p.Request.RequestID, p.ID)
	if err != nil {
		return api.Operation{}, "", err
	}
	if rec.RequestHash != p.Hash {
		return api.Operation{}, "", other
	}
	op, err := m.d.Operations.Finished(ctx, kindCreate, rec.ID, m.view(rec))
	return op, rec.ID, err
}

// requested finds the VM that a request made. One that is going, because it is
// being deleted or its create died with its daemon and is undone, is waited for
// until it is gone.
func (m *Manager) requested(ctx context.Context, requestID string) (store.VM, error) {
	for {
		rec, err := m.d.Store.VMByRequestID(ctx, requestID)
		if err != nil {
			return rec, err
		}
		busy, err := m.d.Operations.List(ctx, operation.Filter{Target: rec.ID, Status: api.OperationRunning})
		if err != nil {
			return rec, err
		}
		i := slices.IndexFunc(busy, func(o api.Operation) bool { return o.Kind == kindCreate || o.Kind == kindDelete })
		if i < 0 {
			return rec, nil
		}
		if _, err := m.d.Operations.Wait(ctx, busy[i].ID); err != nil {
			return rec, err
		}
	}
}

// dropRequest forgets the request of an operation that has ended.
func (m *Manager) dropRequest(requestID, operation string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.requests[requestID].operation == operation {
		delete(m.requests, requestID)
	}
}

// unclaim gives a request id up that was claimed but led to no operation.
func (m *Manager) unclaim(requestID, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.requests[requestID]; r.operation == "" && r.id == id {
		delete(m.requests, requestID)
	}
}

// hash tells requests apart by what they ask for.
func hash(req api.CreateVM, end string) string {
	req.RequestID = ""
	b, _ := json.Marshal(struct { // plain data: cannot fail
		Request api.CreateVM
		End     string
	}{req, end})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// creation is one create under way: what its steps hand on in memory.
type creation struct {
	m      *Manager
	p      createParams
	image  store.Image
	kernel store.Kernel
	leave  func() // ends the phase creating
}

// createSteps are the three phases: resolve (no lock), reserve (milliseconds
// under the reservation lock), start (under the VM's own lock).
func (m *Manager) createSteps(op *operation.Op) ([]operation.Step, error) {
	c := &creation{m: m}
	if err := op.Params(&c.p); err != nil {
		return nil, err
	}
	steps := []operation.Step{
		{Name: "resolve", Do: c.resolve},
		{Name: "reserve", Do: c.reserve, Undo: c.unreserve},
	}
	if !c.p.Request.NoStart {
		steps = append(steps, operation.Step{Name: "start", Do: c.start})
	}
	return steps, nil
}

// resolve finds image and kernel, pulling what is missing, and checks what the
// start will need before anything is made.
func (c *creation) resolve(ctx context.Context, op *operation.Op) error {
	r := c.p.Request
	memory := r.MemoryBytes
	if r.NoStart {
		memory = 0
	}
	if err := c.m.prerequisites("create", vmTitle(r.Name), memory, toolMakeExt4); err != nil {
		return err
	}
	report := func(stage string, p api.Progress) {
		op.Stage(stage)
		op.Progress(p.Done, p.Total, p.Unit)
	}
	op.Stage("resolving image " + r.Image)
	if err := c.pull(ctx, r, report); err != nil {
		return err
	}
	if r.ImageEntrypoint && len(c.image.Config.Entrypoint) == 0 {
		return noEntrypoint(c.image)
	}
	if err := c.m.checkRoot(r, c.image); err != nil {
		return err
	}
	if r.NoStart {
		return nil
	}
	// Asked now, so that a host that cannot run it says so before anything is made.
	op.Stage("choosing the accelerator")
	_, err := c.m.d.Accel.Choose(ctx, r.Driver, r.Accelerator, c.m.d.Layout.Kernel(c.kernel.ID))
	return err
}

// pull finds image and kernel, both at once where the image has to be pulled and
// the catalog knows its kernel. Then the image's progress is shown, and the
// kernel's when that takes longer.
func (c *creation) pull(ctx context.Context, r api.CreateVM, report Report) error {
	policy := r.Pull
	if policy == "always" {
		policy = "missing" // always is about the image
	}
	ahead := ""
	if r.Pull != "never" {
		ahead = c.m.d.Images.KernelAhead(ctx, r.Image)
	}
	wanted := first(r.Kernel, ahead)
	g, joint := errgroup.WithContext(ctx)
	var image atomic.Bool // whether it is here
	if ahead != "" {
		g.Go(func() (err error) {
			c.kernel, err = c.m.d.Kernels.Resolve(joint, wanted, policy, func(stage string, p api.Progress) {
				if image.Load() {
					report(stage, p)
				}
			})
			return err
		})
	}
	g.Go(func() (err error) {
		c.image, err = c.m.d.Images.Resolve(joint, r.Image, r.Pull, report)
		image.Store(err == nil)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	now := first(r.Kernel, c.image.Kernel)
	if ahead != "" && now == wanted {
		return nil
	}
	var err error
	c.kernel, err = c.m.d.Kernels.Resolve(ctx, now, policy, report)
	return err
}

// reserve takes the name: the exact-name check and the insert are one.
func (c *creation) reserve(ctx context.Context, op *operation.Op) error {
	m := c.m
	if err := ctx.Err(); err != nil {
		return api.Errorf(api.KindCancelled, "cannot create vm: %w", err)
	}
	op.Stage("reserving")
	rec := m.newRecord(c.p, c.image, c.kernel)
	if c.p.Request.NoStart {
		rec.Status = api.StatusStopped
	}
	mc := m.machine(c.p.ID)
	leave := mc.enter(api.StatusCreating, op.ID())
	m.reserving.Lock()
	err := m.insert(ctx, &rec, c.p.Request.Name == "")
	m.reserving.Unlock()
	if err != nil {
		leave()
		m.forget(mc)
		return err
	}
	m.event("vm.reserved", rec, nil)
	if !c.p.Request.NoStart {
		c.leave = leave
		return nil
	}
	leave()
	m.event("vm.created", rec, nil)
	return m.result(ctx, op, c.p.ID, true)
}

// insert stores the record, under a name of our own when generate is set.
func (m *Manager) insert(ctx context.Context, rec *store.VM, generate bool) error {
	if !generate {
		err := m.d.Store.InsertVM(ctx, *rec)
		if api.KindOf(err) == api.KindExists {
			return exists(rec.Name)
		}
		return err
	}
	for attempt := 0; ; attempt++ {
		rec.Name = newName(attempt)
		err := m.d.Store.InsertVM(ctx, *rec)
		if api.KindOf(err) != api.KindExists || attempt == 50 {
			return err
		}
	}
}

// unreserve undoes everything a create has made, unless the boot failed and
// the VM is kept with its error and logs.
func (c *creation) unreserve(ctx context.Context, op *operation.Op) error {
	if c.leave != nil {
		defer c.leave()
	}
	var kept bool
	if op.Get(noteKept, &kept) && kept {
		return nil
	}
	return c.m.erase(ctx, c.p.ID, "undone")
}

// noteKept marks a create whose boot failed: its VM stays, stopped.
const noteKept = "kept"

func (c *creation) start(ctx context.Context, op *operation.Op) error {
	m := c.m
	m.mu.Lock()
	hk := m.hooks[c.p.ID]
	delete(m.hooks, c.p.ID)
	m.mu.Unlock()
	mc := m.machine(c.p.ID)
	if err := mc.acquire(ctx); err != nil {
		return err
	}
	defer mc.release()
	rec, err := m.d.Store.VM(ctx, c.p.ID)
	if err != nil {
		return err
	}
	rec, booted, err := m.boot(ctx, mc, rec, op, hk)
	if err != nil {
		if booted && !rec.AutoRemove && ctx.Err() == nil {
			if err := op.Set(noteKept, true); err != nil {
				return err
			}
			return m.bootFailed(ctx, mc, rec, err)
		}
		return err
	}
	if c.leave != nil {
		c.leave()
		c.leave = nil
	}
	v := m.view(rec)
	v.Changed = true
	if err := op.SetResult(v); err != nil {
		return err
	}
	m.event("vm.created", rec, nil)
	return nil
}

func vmTitle(name string) string {
	if name == "" {
		return "vm"
	}
	return `vm "` + name + `"`
}

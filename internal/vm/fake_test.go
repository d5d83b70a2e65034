package vm

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guest"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// world is a host with no VMM: keepers and guests in-process, the guest's agent
// the real one, the store and the operations real too.
type world struct {
	t    *testing.T
	l    layout.Layout
	f    *faults
	host *fakeHost
	ks   *fakeKeepers
	im   *fakeImages
	// templates, when set, is what the next boot of the daemon has.
	templates *fakeTemplates
	// snaps are the host's devices, which outlive daemons and go with their users.
	snaps *fakeSnapshots

	mu     sync.Mutex
	events []string

	*daemon
}

// daemon is what dies and comes back.
type daemon struct {
	db  *store.DB
	ops *operation.Registry
	m   *Manager
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	l := layout.Layout{Config: dir + "/c", State: dir + "/s", Cache: dir + "/x", Runtime: dir + "/r"}
	if err := l.Ensure(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, l: l, f: &faults{}}
	w.host = &fakeHost{f: w.f, procs: map[int]uint64{}, mem: 64 << 30, free: 64 << 30}
	w.ks = &fakeKeepers{f: w.f, host: w.host, all: map[string]*fakeKeeper{}, t: t}
	w.host.ks = w.ks.killPID
	w.snaps = &fakeSnapshots{f: w.f, devices: map[string]bool{}}
	w.im = &fakeImages{f: w.f, root: l.Image("img1").RootFS()}
	for _, p := range []string{l.Image("img1").RootFS(), l.Kernel("k1").VMLinux(), l.Kernel("k1").Modules()} {
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.boot()
	if err := w.db.PublishImage(context.Background(), w.im.image(), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.db.InsertKernel(context.Background(), mustKernel()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.leave()
		w.ks.killAll()
	})
	return w
}

func testLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// boot starts a daemon on the state there is.
func (w *world) boot() {
	w.t.Helper()
	db, err := store.Open(context.Background(), w.l.Database(), testLog())
	if err != nil {
		w.t.Fatal(err)
	}
	ops := operation.New(db, nil, time.Now, testLog())
	m := New(Deps{
		Layout: w.l, Store: faultyStore{db, w.f}, Operations: ops, Images: w.im, Kernels: fakeKernels{w.f},
		Keepers: w.ks, Host: w.host, Snapshots: w.snaps, Accel: fakeAccel{w.f}, Log: testLog(), Now: time.Now,
		Templates: w.templates.orNone(),
		Initrd: func(_ context.Context, path string, _ layout.KernelDir, _ guestapi.Config) error {
			if err := w.f.at("initrd"); err != nil {
				return err
			}
			return os.WriteFile(path, []byte("initrd"), 0o600)
		},
		Network: guestapi.Network{Address: "192.168.127.2/24", Gateway: "192.168.127.1", MTU: 1500},
		Defaults: Defaults{
			Image: "debian-bookworm", VCPUs: 1, MemoryBytes: 512 << 20, DiskBytes: 1 << 30, SystemOverlayBytes: 1 << 30,
		},
		Event: func(kind, _ string, data map[string]string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, kind+" "+data["name"]+" "+data["reason"])
		},
		Timing: Timing{Ready: 20 * time.Second, ReadyTCG: 20 * time.Second, Stop: 5 * time.Second, StopTCG: 5 * time.Second,
			Gone: 5 * time.Second, Hangup: 300 * time.Millisecond, Undo: 10 * time.Second},
	})
	w.daemon = &daemon{db, ops, m}
	if err := m.Recover(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	if err := ops.Recover(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// leave ends the daemon as a signal would; operations stay as they are.
func (w *world) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.ops.Close(ctx); err != nil {
		w.t.Errorf("close operations: %v", err)
	}
	if err := w.m.Close(ctx); err != nil {
		w.t.Errorf("close manager: %v", err)
	}
	if err := w.db.Close(); err != nil {
		w.t.Errorf("close store: %v", err)
	}
}

// settle waits for an operation and gives its end.
func (w *world) settle(op api.Operation, err error) api.Operation {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("begin: %v", err)
	}
	op, err = w.ops.Wait(context.Background(), op.ID)
	if err != nil {
		w.t.Fatalf("wait: %v", err)
	}
	return op
}

func (w *world) must(op api.Operation, err error) {
	w.t.Helper()
	if op = w.settle(op, err); op.Error != nil {
		w.t.Fatalf("%s: %v", op.Kind, op.Error)
	}
}

func (w *world) create(name string) api.VM {
	w.t.Helper()
	w.must(w.m.Create(context.Background(), api.CreateVM{Name: name}))
	return w.show(name)
}

func (w *world) show(ref string) api.VM {
	w.t.Helper()
	v, err := w.m.Show(context.Background(), ref)
	if err != nil {
		w.t.Fatalf("show %s: %v", ref, err)
	}
	return v
}

// eventually waits for what another goroutine does.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	w.t.Fatalf("never came true: %s", what)
}

// nothingLeft checks that no trace of any VM is there.
func (w *world) nothingLeft() {
	w.t.Helper()
	all, err := w.m.List(context.Background(), nil)
	if err != nil || len(all) != 0 {
		w.t.Errorf("vms left: %v %v", all, err)
	}
	for _, dir := range []string{w.l.VMs(), filepath.Dir(w.l.VM("x").Run)} {
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			w.t.Errorf("left in %s: %v", dir, left)
		}
	}
	if n := w.ks.running(); n != 0 {
		w.t.Errorf("%d keepers left", n)
	}
}

// faults fails named host operations.
type faults struct {
	mu   sync.Mutex
	fail map[string]error
	hold map[string]chan struct{} // the operation waits for its closing
	held map[string]int           // how many do
}

// waiting says whether somebody is at a stalled operation.
func (f *faults) waiting(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held[name] > 0
}

var errFault = errors.New("injected fault")

func (f *faults) set(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.fail = map[string]error{}
	}
	if err == nil {
		delete(f.fail, name)
		return
	}
	f.fail[name] = err
}

// stall makes the named operation wait until release is called.
func (f *faults) stall(name string) (release func()) {
	c := make(chan struct{})
	f.mu.Lock()
	if f.hold == nil {
		f.hold = map[string]chan struct{}{}
	}
	f.hold[name] = c
	f.mu.Unlock()
	return sync.OnceFunc(func() {
		f.mu.Lock()
		delete(f.hold, name)
		f.mu.Unlock()
		close(c)
	})
}

func (f *faults) at(name string) error { return f.atCtx(context.Background(), name) }

func (f *faults) atCtx(ctx context.Context, name string) error {
	f.mu.Lock()
	err, c := f.fail[name], f.hold[name]
	if c != nil {
		if f.held == nil {
			f.held = map[string]int{}
		}
		f.held[name]++
	}
	f.mu.Unlock()
	if c != nil {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

type faultyStore struct {
	*store.DB
	f *faults
}

func (s faultyStore) InsertVM(ctx context.Context, v store.VM) error {
	if err := s.f.at("insert"); err != nil {
		return err
	}
	return s.DB.InsertVM(ctx, v)
}

func (s faultyStore) DeleteVM(ctx context.Context, id string) error {
	if err := s.f.at("delete row"); err != nil {
		return err
	}
	return s.DB.DeleteVM(ctx, id)
}

type fakeImages struct {
	f    *faults
	root string         // its root file system
	in   sync.WaitGroup // when armed: all callers must be in before one goes on
	on   bool
	// ahead is the kernel of an image that is not here, known from a catalog.
	ahead string
	more  map[string]store.Image
}

func (i *fakeImages) KernelAhead(context.Context, string) string { return i.ahead }

func (i *fakeImages) Usable(image store.Image) (string, error) {
	_, err := os.Stat(i.root)
	if err != nil {
		err = api.Errorf(api.KindBadState, "cannot use image %q: its files are gone: %w", image.Name, err)
	}
	return i.root, err
}

func (*fakeImages) image() store.Image {
	return store.Image{ID: "img1", Name: "debian-bookworm", Digest: "sha256:1", Kernel: "k", CreatedAt: time.Now(),
		Config: api.ImageConfig{Env: []string{"PATH=/image/bin:/usr/bin:/bin", "HOME=/nowhere", "IMG=1"}}}
}

func (i *fakeImages) Resolve(ctx context.Context, ref, _ string, report Report) (store.Image, error) {
	report("pulling "+ref, api.Progress{Done: 1, Total: 2, Unit: "items"})
	if i.on {
		i.in.Done()
		i.in.Wait()
	}
	if err := i.f.atCtx(ctx, "image"); err != nil {
		return store.Image{}, err
	}
	if more, ok := i.more[ref]; ok {
		return more, nil
	}
	if ref != "debian-bookworm" {
		return store.Image{}, api.Errorf(api.KindNotFound, "cannot find image %q", ref)
	}
	return i.image(), nil
}

type fakeKernels struct{ f *faults }

func (k fakeKernels) Resolve(ctx context.Context, name, _ string, report Report) (store.Kernel, error) {
	report("pulling kernel "+name, api.Progress{Done: 1, Total: 2, Unit: "items"})
	if err := k.f.at("kernel " + name); err != nil {
		return store.Kernel{}, err
	}
	if name == "k2" {
		return store.Kernel{ID: "k2", Name: "k2", Version: "6.2"}, nil
	}
	return store.Kernel{ID: "k1", Name: "k", Version: "6.1"}, k.f.atCtx(ctx, "kernel")
}

type fakeAccel struct{ f *faults }

func (a fakeAccel) Choose(ctx context.Context, _, _ string, _ layout.KernelDir) (Choice, error) {
	return Choice{Driver: "fake", Accelerator: vmm.TCG, Reason: "a test"}, a.f.atCtx(ctx, "accel")
}

type fakeHost struct {
	f         *faults
	mem, free int64
	spans     int64 // of every disk's file system; 0: none known

	mu    sync.Mutex
	procs map[int]uint64
	next  int
	grown []string
	// clones says that files can be cloned; cloned counts them.
	clones bool
	cloned int
	ks     func(pid int) // kills a keeper
	gone   []string      // groups that were removed
}

func (h *fakeHost) CPUs() int                       { return 4 }
func (h *fakeHost) MemoryTotal() (int64, error)     { return 64 << 30, nil }
func (h *fakeHost) MemoryAvailable() (int64, error) { return h.mem, nil }
func (h *fakeHost) FreeDisk(string) (int64, error)  { return h.free, nil }
func (h *fakeHost) BootID() string                  { return "boot-1" }
func (h *fakeHost) LookTool(name string) error      { return h.f.at("tool " + name) }
func (h *fakeHost) MakeExt4(ctx context.Context, path string, n int64) error {
	if err := os.WriteFile(path, []byte("ext4"), 0o600); err != nil {
		return err
	}
	if err := h.f.atCtx(ctx, "mkfs"); err != nil { // half-made
		return err
	}
	return os.Truncate(path, n)
}

func (h *fakeHost) Ext4Size(string) (int64, error) { return h.spans, nil }

func (h *fakeHost) GrowExt4(ctx context.Context, path string, n int64) error {
	if err := h.f.atCtx(ctx, "growfs"); err != nil {
		return err
	}
	h.mu.Lock()
	h.grown = append(h.grown, filepath.Base(path))
	h.mu.Unlock()
	return os.Truncate(path, n)
}

func (h *fakeHost) CanClone(path, _ string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if !h.clones {
		return api.Errorf(api.KindUnsupported, "cannot clone %s: its file system does not share blocks between files", path)
	}
	return nil
}

func (h *fakeHost) CloneExt4(ctx context.Context, from, to string, n int64) error {
	if _, err := os.Stat(from); err != nil {
		return err
	}
	if err := os.WriteFile(to, []byte("clone"), 0o600); err != nil {
		return err
	}
	if err := h.f.atCtx(ctx, "clone"); err != nil { // half-made
		return err
	}
	h.mu.Lock()
	h.cloned++
	h.mu.Unlock()
	return os.Truncate(to, n)
}

func (h *fakeHost) RemoveGroup(name string) error {
	h.mu.Lock()
	h.gone = append(h.gone, name)
	h.mu.Unlock()
	return h.f.at("remove group")
}

// removedGroup says how often that group was removed.
func (h *fakeHost) removedGroup(name string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.gone {
		if g == name {
			n++
		}
	}
	return n
}

func (h *fakeHost) OwnExt4(ctx context.Context, path string, _ int64) error {
	return h.f.atCtx(ctx, "own "+path)
}

func (h *fakeHost) start() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	pid := 1_000_000 + h.next
	h.procs[pid] = uint64(h.next)
	return pid
}

func (h *fakeHost) endProcess(pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.procs, pid)
}

func (h *fakeHost) ProcessStart(pid int) (uint64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.procs[pid]
	return s, ok
}

func (h *fakeHost) Signal(pid int, start uint64, sig syscall.Signal) error {
	if s, ok := h.ProcessStart(pid); !ok || s != start {
		return syscall.ESRCH
	}
	h.ks(pid)
	return nil
}

// fakeKeepers outlive daemons, as keeper processes do.
type fakeKeepers struct {
	t    *testing.T
	f    *faults
	host *fakeHost

	mu      sync.Mutex
	all     map[string]*fakeKeeper
	useless string          // why no template is of use
	online  bool            // disks can grow while the machine runs
	hangs   bool            // and its VMM does not answer when they do
	barrier *sync.WaitGroup // when set: all launches must be in before one goes on
}

func (ks *fakeKeepers) Launch(ctx context.Context, dir layout.VMDir, b Boot) (Keeper, error) {
	if ks.barrier != nil {
		ks.barrier.Done()
		ks.barrier.Wait()
	}
	if err := ks.f.atCtx(ctx, "launch"); err != nil {
		return nil, err
	}
	k := &fakeKeeper{
		ks: ks, id: b.Spec.ID, dir: dir, pid: ks.host.start(), vmm: ks.host.start(),
		up: make(chan struct{}), waits: make(chan string), conns: make(chan net.Conn), done: make(chan struct{}), spec: b.Spec, boot: b,
	}
	k.agent = guest.NewAgent(guest.Options{Build: "test", Env: []string{"VMENV=1"}, System: guest.System{
		Shutdown: func(ctx context.Context, s guestapi.Shutdown) (guestapi.ShutdownReply, func()) {
			if err := ks.f.atCtx(ctx, "shutdown"); err != nil {
				return guestapi.ShutdownReply{}, func() {}
			}
			return guestapi.ShutdownReply{}, func() { k.exit(vmm.Exit{Reason: vmm.ReasonPowerOff, At: time.Now()}) }
		},
		Grow: func(string) (int64, error) { return 1 << 62, ks.f.at("guest grow") },
	}}, testLog())
	go func() { _ = k.agent.Serve(k) }()
	switch err := ks.f.at("boot"); {
	case errors.Is(err, errPanic):
		_ = os.WriteFile(dir.ConsoleLog(), []byte("hello\nKernel panic - not syncing: no root\n"), 0o600)
		time.AfterFunc(10*time.Millisecond, func() {
			k.exit(vmm.Exit{Reason: vmm.ReasonPanic, Detail: "no root", At: time.Now()})
		})
	case errors.Is(err, errNeverUp):
	default:
		go func() { // the guest boots
			if ks.f.at("booting") == nil {
				close(k.up)
			}
		}()
	}
	ks.mu.Lock()
	ks.all[b.Spec.ID] = k
	ks.mu.Unlock()
	return ks.client(k), nil
}

var (
	errPanic   = errors.New("panic at boot")
	errNeverUp = errors.New("never up")
)

// noTemplate says why machines boot from now on.
func (ks *fakeKeepers) noTemplate(why string) {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	ks.useless = why
}

func (ks *fakeKeepers) Attach(_ context.Context, dir layout.VMDir) (Keeper, error) {
	if err := ks.f.at("attach"); err != nil {
		return nil, err
	}
	ks.mu.Lock()
	defer ks.mu.Unlock()
	for _, k := range ks.all {
		if k.dir == dir && !k.over() {
			return ks.client(k), nil
		}
	}
	return nil, api.Errorf(api.KindNotFound, "no keeper")
}

func (ks *fakeKeepers) get(id string) *fakeKeeper {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	return ks.all[id]
}

func (ks *fakeKeepers) running() int {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	n := 0
	for _, k := range ks.all {
		if !k.over() {
			n++
		}
	}
	return n
}

func (ks *fakeKeepers) killPID(pid int) {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	for _, k := range ks.all {
		switch pid {
		case k.pid:
			k.die()
		case k.vmm:
			go k.exit(vmm.Exit{Reason: vmm.ReasonCrashed, Detail: "signal", At: time.Now()})
		}
	}
}

func (ks *fakeKeepers) killAll() {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	for _, k := range ks.all {
		k.die()
	}
}

func (ks *fakeKeepers) client(k *fakeKeeper) Keeper { return &fakeClient{k} }

// fakeKeeper is the keeper process with its machine.
type fakeKeeper struct {
	ks       *fakeKeepers
	id       string
	dir      layout.VMDir
	spec     vmm.Spec
	boot     Boot
	pid, vmm int
	agent    *guest.Agent
	up       chan struct{}
	waits    chan string // what the guest waits for from now on
	conns    chan net.Conn
	done     chan struct{}

	mu   sync.Mutex
	end  bool
	last *vmm.Exit
}

// exit ends the machine, then the keeper, in order.
func (k *fakeKeeper) exit(e vmm.Exit) { k.stop(&e) }

// die is the keeper's death without a word.
func (k *fakeKeeper) die() { k.stop(nil) }

func (k *fakeKeeper) stop(e *vmm.Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.end {
		return
	}
	k.end, k.last = true, e
	if e != nil {
		b := `{"reason":"` + string(e.Reason) + `","detail":"` + e.Detail + `"}`
		_ = os.WriteFile(k.dir.ExitFile(), []byte(b), 0o600)
	}
	k.ks.host.endProcess(k.pid)
	k.ks.host.endProcess(k.vmm)
	close(k.done)
	go func() { _ = k.agent.Close() }()
}

func (k *fakeKeeper) over() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.end
}

// Accept, Close and Addr make it the agent's listener.
func (k *fakeKeeper) Accept() (net.Conn, error) {
	select {
	case c := <-k.conns:
		return c, nil
	case <-k.done:
		return nil, net.ErrClosed
	}
}
func (k *fakeKeeper) Close() error   { return nil }
func (k *fakeKeeper) Addr() net.Addr { return &net.UnixAddr{} }

// fakeClient is a daemon's connection to the keeper.
type fakeClient struct{ k *fakeKeeper }

func (c *fakeClient) State(context.Context) (KeeperState, error) {
	c.k.ks.mu.Lock()
	useless := c.k.ks.useless
	c.k.ks.mu.Unlock()
	return KeeperState{PID: c.k.pid, VMMPID: c.k.vmm, NoTemplate: useless}, c.k.ks.f.at("state")
}

func (c *fakeClient) Watch(ctx context.Context) (<-chan KeeperState, error) {
	out := make(chan KeeperState)
	go func() {
		defer close(out)
		for {
			select {
			case why := <-c.k.waits:
				out <- KeeperState{PID: c.k.pid, VMMPID: c.k.vmm, Waits: why}
			case <-c.k.done:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (c *fakeClient) PowerButton(context.Context) error {
	if err := c.k.ks.f.at("button"); err != nil {
		return err
	}
	c.k.exit(vmm.Exit{Reason: vmm.ReasonPowerOff, At: time.Now()})
	return nil
}

func (c *fakeClient) Kill(context.Context) error {
	if err := c.k.ks.f.at("kill"); err != nil {
		return err
	}
	c.k.exit(vmm.Exit{Reason: vmm.ReasonKilled, At: time.Now()})
	return nil
}

func (c *fakeClient) DialGuest(ctx context.Context) (net.Conn, error) {
	if err := c.k.ks.f.atCtx(ctx, "dial"); err != nil {
		return nil, err
	}
	select {
	case <-c.k.up:
	case <-c.k.done:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a, b := net.Pipe()
	select {
	case c.k.conns <- b:
		return a, nil
	case <-c.k.done:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *fakeClient) DialBulk(ctx context.Context) (net.Conn, error) { return c.DialGuest(ctx) }
func (c *fakeClient) Done() <-chan struct{}                          { return c.k.done }
func (c *fakeClient) Exit() (vmm.Exit, bool) {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	if c.k.last == nil {
		return vmm.Exit{}, false
	}
	return *c.k.last, true
}

func mustKernel() store.Kernel { return store.Kernel{ID: "k1", Name: "k", Version: "6.1"} }

func (c *fakeClient) Resize(ctx context.Context, serial string, n int64) error {
	if c.k.ks.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if !c.k.ks.online {
		return api.Errorf(api.KindUnsupported, "cannot resize a disk while it is used")
	}
	if serial == guestapi.RoleSystem {
		return os.Truncate(c.k.dir.SystemDisk(), n)
	}
	return os.Truncate(c.k.dir.WorkDisk(), n)
}

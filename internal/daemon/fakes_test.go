package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/version"
)

// fakeVMs is one VM called web, and calls it was asked.
type fakeVMs struct {
	mu    sync.Mutex
	calls []string
	exec  func(ctx context.Context, req api.Exec, s *stream) error
	run   func(ctx context.Context, req api.Run, s *stream) error
	logs  func(ctx context.Context, o logOptions, w io.Writer) error
}

func (f *fakeVMs) note(words ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.Join(words, " "))
}

func (f *fakeVMs) find(ref string) (api.VM, error) {
	if ref == "boom" {
		panic("boom")
	}
	if ref != "web" && ref != "prune" {
		return api.VM{}, api.Errorf(api.KindNotFound, "cannot find vm %q", ref).WithHint("banger vm list")
	}
	return api.VM{ID: "0123", Name: ref, Status: api.StatusRunning}, nil
}

func (f *fakeVMs) op(kind, ref string) (api.Operation, error) {
	f.note(kind, ref)
	_, err := f.find(ref)
	return api.Operation{ID: "op1", Kind: "vm." + kind, Target: ref, Status: api.OperationRunning}, err
}

func (f *fakeVMs) List(context.Context, []string) ([]api.VM, error) { return nil, nil }
func (f *fakeVMs) Show(_ context.Context, ref string) (api.VM, error) {
	return f.find(ref)
}
func (f *fakeVMs) Create(_ context.Context, req api.CreateVM) (api.Operation, error) {
	f.note("create", req.Name)
	return api.Operation{ID: "op1", Kind: "vm.create"}, nil
}
func (f *fakeVMs) Start(_ context.Context, ref string) (api.Operation, error) {
	return f.op("start", ref)
}
func (f *fakeVMs) Stop(_ context.Context, ref string, _ api.StopVM) (api.Operation, error) {
	return f.op("stop", ref)
}
func (f *fakeVMs) Restart(_ context.Context, ref string) (api.Operation, error) {
	return f.op("restart", ref)
}
func (f *fakeVMs) Delete(_ context.Context, ref string, force bool) (api.Operation, error) {
	if force {
		return f.op("delete -f", ref)
	}
	return f.op("delete", ref)
}
func (f *fakeVMs) Kill(_ context.Context, ref string, _ api.KillVM) (api.VM, error) {
	return f.find(ref)
}
func (f *fakeVMs) Rename(_ context.Context, ref string, _ api.RenameVM) (api.VM, error) {
	return f.find(ref)
}
func (f *fakeVMs) Set(_ context.Context, ref string, _ api.SetVM) (api.VM, error) {
	return f.find(ref)
}
func (f *fakeVMs) Wait(ctx context.Context, ref, until string) (api.VM, error) {
	if until == api.WaitStopped { // never comes
		<-ctx.Done()
		return api.VM{}, ctx.Err()
	}
	return f.find(ref)
}
func (f *fakeVMs) Logs(ctx context.Context, _ string, o logOptions, w io.Writer) error {
	return f.logs(ctx, o, w)
}
func (f *fakeVMs) Prune(context.Context, api.PruneVMs) ([]api.Result, error) { return nil, nil }
func (f *fakeVMs) Exec(ctx context.Context, _ string, req api.Exec, s *stream) error {
	return f.exec(ctx, req, s)
}
func (f *fakeVMs) Run(ctx context.Context, req api.Run, s *stream) error { return f.run(ctx, req, s) }

type fakeImages struct{}

func (fakeImages) List(context.Context) ([]api.Image, error) { return nil, nil }
func (fakeImages) Show(_ context.Context, name string) (api.Image, error) {
	return api.Image{Name: name}, nil
}
func (fakeImages) Pull(_ context.Context, req api.PullImage) (api.Operation, error) {
	return api.Operation{ID: "op2", Target: req.Name}, nil
}
func (fakeImages) Import(_ context.Context, req api.ImportImage) (api.Operation, error) {
	return api.Operation{ID: "op4", Target: req.Name}, nil
}
func (fakeImages) ImportStream(_ context.Context, req api.ImportImage, body io.Reader) (api.Operation, error) {
	n, err := io.Copy(io.Discard, body)
	return api.Operation{ID: "op5", Target: req.Name, Progress: api.Progress{Done: n}}, err
}
func (fakeImages) Register(_ context.Context, req api.RegisterImage) (api.Operation, error) {
	return api.Operation{ID: "op6", Target: req.Name}, nil
}
func (fakeImages) Promote(_ context.Context, ref string, _ api.PromoteImage) (api.Operation, error) {
	return api.Operation{ID: "op7", Target: ref}, nil
}
func (fakeImages) Bundle(_ context.Context, ref string, _ api.BundleImage) (api.Operation, error) {
	return api.Operation{ID: "op8", Target: ref}, nil
}
func (fakeImages) Delete(_ context.Context, ref string) (api.Result, error) {
	return api.Result{Ref: ref, OK: true, Changed: true}, nil
}
func (fakeImages) Prune(_ context.Context, req api.PruneImages) (api.PrunedImages, error) {
	return api.PrunedImages{DryRun: req.DryRun}, nil
}
func (fakeImages) Catalog(context.Context, bool) ([]api.CatalogEntry, error) { return nil, nil }

type fakeCatalogs struct{}

func (fakeCatalogs) Catalogs() []api.Catalog { return []api.Catalog{{Name: "banger"}} }

type fakeSystem struct{}

func (fakeSystem) Fetch(context.Context, api.FetchFirecracker) (api.Operation, error) {
	return api.Operation{ID: "op", Kind: "system.fetch-firecracker"}, nil
}

type fakeKernels struct{}

func (fakeKernels) List(context.Context) ([]api.Kernel, error) { return nil, nil }
func (fakeKernels) Show(_ context.Context, name string) (api.Kernel, error) {
	return api.Kernel{Name: name}, nil
}
func (fakeKernels) Pull(_ context.Context, req api.Pull) (api.Operation, error) {
	return api.Operation{ID: "op3", Target: req.Name}, nil
}
func (fakeKernels) Import(_ context.Context, req api.ImportKernel) (api.Operation, error) {
	return api.Operation{ID: "op4", Target: req.Name}, nil
}
func (fakeKernels) Delete(_ context.Context, ref string, _ bool) (api.Result, error) {
	return api.Result{Ref: ref, OK: true}, nil
}
func (fakeKernels) Catalog(context.Context, bool) ([]api.CatalogEntry, error) { return nil, nil }

// fakeOperations is one operation, op1, that ends when end is closed.
type fakeOperations struct{ end chan struct{} }

func (f fakeOperations) op(status api.OperationStatus) api.Operation {
	return api.Operation{ID: "op1", Status: status}
}
func (f fakeOperations) List(context.Context) ([]api.Operation, error) {
	return []api.Operation{f.op(api.OperationRunning)}, nil
}
func (f fakeOperations) Get(_ context.Context, id string) (api.Operation, error) {
	if id != "op1" {
		return api.Operation{}, api.Errorf(api.KindNotFound, "cannot find operation %q", id)
	}
	return f.op(api.OperationRunning), nil
}
func (f fakeOperations) Wait(ctx context.Context, _ string) (api.Operation, error) {
	select {
	case <-f.end:
		return f.op(api.OperationSucceeded), nil
	case <-ctx.Done():
		return api.Operation{}, ctx.Err()
	}
}
func (f fakeOperations) Cancel(context.Context, string) (api.Operation, error) {
	return f.op(api.OperationCancelled), nil
}
func (f fakeOperations) Watch(ctx context.Context, id string) (<-chan api.Operation, error) {
	if _, err := f.Get(ctx, id); err != nil {
		return nil, err
	}
	c := make(chan api.Operation, 2)
	c <- f.op(api.OperationRunning)
	go func() {
		defer close(c)
		select {
		case <-f.end:
			c <- f.op(api.OperationSucceeded)
		case <-ctx.Done():
		}
	}()
	return c, nil
}
func (f fakeOperations) Running() int                                   { return 1 }
func (f fakeOperations) Prune(context.Context) ([]api.Operation, error) { return nil, nil }

// memoryEvents is an event store in memory.
type memoryEvents struct {
	mu   sync.Mutex
	list []api.Event
}

func (m *memoryEvents) AppendEvent(_ context.Context, e api.Event) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.ID = int64(len(m.list) + 1)
	m.list = append(m.list, e)
	return e.ID, nil
}
func (m *memoryEvents) Events(_ context.Context, since int64, limit int) ([]api.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := m.list[min(int(since), len(m.list)):]
	return append([]api.Event{}, rest[:min(limit, len(rest))]...), nil
}
func (m *memoryEvents) TrimEvents(context.Context, int) error { return nil }

// rig is a server on a real Unix socket with fake nouns behind it.
type rig struct {
	*server
	vms    *fakeVMs
	end    chan struct{}
	bus    *bus
	client *http.Client
	socket string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := newClosedRig(t)
	r.open(r.fakes())
	return r
}

// newClosedRig has not recovered yet: the caller opens it.
func newClosedRig(t testing.TB) *rig {
	t.Helper()
	l := layout.Layout{State: t.TempDir(), Runtime: t.TempDir()}
	leaving, stop := context.WithCancel(context.Background())
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	b, err := newBus(t.Context(), &memoryEvents{}, log, time.Now, api.Event{Kind: "daemon.started"})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(&server{
		log: log, info: version.Info{Version: "1.2.3", Build: "cafe"}, layout: l, started: time.Now(), pid: 42,
		config:  func() []api.ConfigValue { return nil },
		leaving: leaving, stop: stop,
	})
	r := &rig{server: s, vms: &fakeVMs{}, end: make(chan struct{}), bus: b, socket: filepath.Join(l.Runtime, "daemon.sock")}
	ln, err := listen(l)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(nil)
	h.Listener.Close()
	h.Listener, h.Config = ln, httpServer(s)
	h.Start()
	r.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
		},
	}}
	t.Cleanup(func() {
		stop()
		r.client.CloseIdleConnections()
		h.Close()
		b.Close()
	})
	return r
}

func (r *rig) fakes() services {
	return services{
		vms: r.vms, images: fakeImages{}, kernels: fakeKernels{}, catalogs: fakeCatalogs{}, system: fakeSystem{}, operations: fakeOperations{r.end}, events: r.bus,
		doctor: func(context.Context, string) []api.Check { return nil },
	}
}

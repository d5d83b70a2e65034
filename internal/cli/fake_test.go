package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/config"
	"github.com/bangervm/banger/internal/layout"
)

// TestMain makes the test binary banger itself when a test, or a command under
// test that starts a daemon, runs it.
var _ = flag.Bool("update", false, "taken by the tests of docs and golden files in other packages")

func TestMain(m *testing.M) {
	if os.Getenv("BANGER_TEST_MAIN") != "" {
		os.Exit(Main(Env{
			Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
			Programs: Programs{Daemon: fakeDaemon, Keeper: func(args []string) error {
				return api.Errorf(api.KindGuest, "keeper of %s", strings.Join(args, " "))
			}},
		}))
	}
	// Started under nohup or in a script's background, we and so the commands
	// under test would ignore these. What is caught here is as by default in them.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		<-ended
		os.Exit(130)
	}()
	os.Exit(m.Run())
}

// fakeDaemon serves until it is told to stop, or dies as the variable says.
func fakeDaemon(ctx context.Context) error {
	if os.Getenv("BANGER_TEST_DAEMON") == "dies" {
		fmt.Fprintln(os.Stderr, "level=INFO msg=hello")
		return api.Errorf(api.KindInvalid, "cannot read the configuration").WithHint("edit it")
	}
	if os.Getenv("BANGER_TEST_DAEMON") == "crashes" {
		fmt.Fprintln(os.Stderr, "panic: oh")
		os.Exit(3)
	}
	l, err := layout.Resolve(os.Getenv, os.Geteuid())
	if err != nil {
		return err
	}
	count := l.State + "/started"
	b, _ := os.ReadFile(count)
	if err := os.WriteFile(count, append(b, 'x'), 0o600); err != nil {
		return err
	}
	os.Remove(l.DaemonSocket())
	ln, err := net.Listen("unix", l.DaemonSocket())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := newFake()
	f.stop = cancel
	s := &http.Server{Handler: f}
	go func() {
		<-ctx.Done()
		s.Close()
	}()
	_ = s.Serve(ln)
	return nil
}

// fake is a daemon of a few VMs in memory.
type fake struct {
	*http.ServeMux
	stop  func()
	build string

	mu        sync.Mutex
	vms       []api.VM
	cancelled bool
	requests  []string
	signals   []string
	resizes   int
	created   api.CreateVM
	exec      api.Exec
	run       api.Run
	// slow keeps operations running until they are cancelled.
	slow bool
	// stuck makes cancelling last until it is closed.
	stuck chan struct{}
	// script is what a command does; none ends it at once.
	script atomic.Value // of a script
}

func newFake() *fake {
	f := &fake{ServeMux: http.NewServeMux(), stop: func() {}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.vms = []api.VM{
		{ID: "aaaaaaaaaaaaaaaa", Name: "web", Status: api.StatusRunning, Ready: true, Image: api.ImageRef{Name: "debian-bookworm"}, VCPUs: 2, MemoryBytes: 2 << 30, DiskBytes: 8 << 30, SystemOverlayBytes: 8 << 30, RootDisk: "overlay", Network: api.VMNetwork{Mode: "user"}, Driver: "qemu", Accelerator: "tcg", CreatedAt: at},
		{ID: "bbbbbbbbbbbbbbbb", Name: "db", Status: api.StatusStopped, Image: api.ImageRef{Name: "debian-bookworm"}, VCPUs: 1, MemoryBytes: 512 << 20, DiskBytes: 8 << 30, SystemOverlayBytes: 8 << 30, CreatedAt: at, Error: api.Errorf(api.KindGuest, "kernel panic")},
	}
	handle := func(pattern string, h func(w http.ResponseWriter, r *http.Request) (any, error)) {
		f.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
			if f.build != "" {
				w.Header().Set(client.HeaderBuild, f.build)
			}
			v, err := h(w, r)
			if err != nil {
				w.WriteHeader(api.KindOf(err).HTTPStatus())
				v = api.ErrorReply{Error: api.AsError(err)}
			}
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	operation := func(r *http.Request, kind string, change func(vm *api.VM) bool) (any, error) {
		ref := r.PathValue("vm")
		vm, err := f.find(ref)
		if err != nil {
			return nil, err
		}
		vm.Changed = change(vm)
		result, _ := json.Marshal(vm)
		now := time.Now()
		op := api.Operation{ID: "op-" + vm.Name, Kind: kind, Target: vm.ID, Status: api.OperationSucceeded, FinishedAt: &now, Result: result}
		if f.slow {
			op.Status, op.FinishedAt, op.Result = api.OperationRunning, nil, nil
		}
		return op, nil
	}
	handle("GET /v1/vms", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		out := []api.VM{}
		for _, vm := range f.vms {
			if q := r.URL.Query()["filter"]; len(q) == 0 || slices.Contains(q, "status="+string(vm.Status)) {
				out = append(out, vm)
			}
		}
		return out, nil
	})
	handle("POST /v1/vms", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		if err := json.NewDecoder(r.Body).Decode(&f.created); err != nil {
			return nil, err
		}
		if f.created.Name == "web" {
			return nil, api.Errorf(api.KindExists, "cannot create vm %q: the name is taken", "web").WithHint("banger vm show web")
		}
		vm := api.VM{ID: "cccccccccccccccc", Name: f.created.Name, Status: api.StatusRunning, Changed: true}
		f.vms = append(f.vms, vm)
		b, _ := json.Marshal(vm)
		op := api.Operation{ID: "op-new", Kind: "vm.create", Target: vm.ID, Status: api.OperationSucceeded, Result: b}
		if f.slow {
			op.Status, op.Result = api.OperationRunning, nil
		}
		return op, nil
	})
	handle("GET /v1/vms/{vm}", func(_ http.ResponseWriter, r *http.Request) (any, error) { return f.find(r.PathValue("vm")) })
	handle("PATCH /v1/vms/{vm}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		vm, err := f.find(r.PathValue("vm"))
		if err == nil {
			vm.Changed, vm.Pending = true, []string{"memory"}
		}
		return vm, err
	})
	handle("DELETE /v1/vms/{vm}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return operation(r, "vm.delete", func(*api.VM) bool { return true })
	})
	handle("POST /v1/vms/prune", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return []api.Result{{Ref: "db", ID: "bbbbbbbbbbbbbbbb", OK: true, Changed: true}}, nil
	})
	handle("POST /v1/vms/{vm}/start", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return operation(r, "vm.start", func(vm *api.VM) bool { return vm.Status != api.StatusRunning })
	})
	handle("POST /v1/vms/{vm}/stop", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return operation(r, "vm.stop", func(vm *api.VM) bool { return vm.Status == api.StatusRunning })
	})
	f.HandleFunc("GET /v1/operations/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r.URL.Path)
		f.mu.Unlock()
		w.Header().Set("Content-Type", "text/event-stream")
		send := func(op api.Operation) {
			b, _ := json.Marshal(op)
			fmt.Fprintf(w, "data: %s\n\n", b)
			w.(http.Flusher).Flush()
		}
		op := api.Operation{ID: r.PathValue("id"), Kind: "vm.create", Status: api.OperationRunning, Stage: "boot"}
		send(op)
		for range 2000 {
			f.mu.Lock()
			cancelled := f.cancelled
			f.mu.Unlock()
			if cancelled {
				op.Status, op.Error = api.OperationCancelled, api.Errorf(api.KindCancelled, "cannot create vm: cancelled")
				send(op)
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	handle("POST /v1/operations/{id}/cancel", func(http.ResponseWriter, *http.Request) (any, error) {
		f.cancelled = true
		return api.Operation{ID: "op", Status: api.OperationRunning}, nil
	})
	handle("GET /v1/images", func(http.ResponseWriter, *http.Request) (any, error) { return []api.Image(nil), nil })
	f.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("follow") != "" {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			f.mu.Lock()
			f.requests = append(f.requests, r.URL.Path)
			f.mu.Unlock()
			<-r.Context().Done()
			return
		}
		_ = json.NewEncoder(w).Encode([]api.Event{{ID: 1, Kind: "vm.started", Target: "aaaa", Data: map[string]string{"name": "web", "a": ""}}})
	})
	handle("GET /v1/daemon", func(http.ResponseWriter, *http.Request) (any, error) {
		return api.Daemon{PID: os.Getpid(), Build: "b", Version: "dev"}, nil
	})
	handle("POST /v1/daemon/stop", func(http.ResponseWriter, *http.Request) (any, error) {
		time.AfterFunc(20*time.Millisecond, f.stop)
		return api.Daemon{}, nil
	})
	handle("GET /v1/doctor", func(http.ResponseWriter, *http.Request) (any, error) {
		return []api.Check{{Name: "qemu", Status: api.CheckFail, Message: "not found", Hint: "apt install qemu-system-x86"}}, nil
	})
	handle("GET /v1/config", func(http.ResponseWriter, *http.Request) (any, error) {
		return []api.ConfigValue{{Key: "log_level", Value: "info", Source: "default"}, {Key: "vm_defaults.vcpu", Value: 2, Source: "file"}}, nil
	})
	f.HandleFunc("GET /v1/vms/{vm}/exec", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		_, err := f.find(r.PathValue("vm"))
		f.mu.Unlock()
		if err != nil {
			w.WriteHeader(api.KindOf(err).HTTPStatus())
			_ = json.NewEncoder(w).Encode(api.ErrorReply{Error: api.AsError(err)})
			return
		}
		conn, first := f.accept(w, r)
		defer conn.CloseNow()
		f.mu.Lock()
		_ = json.Unmarshal(first, &f.exec)
		req := f.exec
		f.mu.Unlock()
		f.serve(conn, req, api.Exit{})
	})
	f.HandleFunc("GET /v1/run", func(w http.ResponseWriter, r *http.Request) {
		conn, first := f.accept(w, r)
		defer conn.CloseNow()
		f.mu.Lock()
		_ = json.Unmarshal(first, &f.run)
		req := f.run
		f.mu.Unlock()
		send(conn, api.ChannelProgress, api.Operation{ID: "op-run", Kind: "vm.create", Status: api.OperationRunning, Stage: "boot"})
		if f.slow {
			for {
				f.mu.Lock()
				cancelled := f.cancelled
				f.mu.Unlock()
				if cancelled {
					if f.stuck != nil {
						<-f.stuck
					}
					send(conn, api.ChannelExit, api.Exit{Error: api.Errorf(api.KindCancelled, "cannot create vm: cancelled")})
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		f.serve(conn, req.Exec, api.Exit{VM: map[string]string{api.EndKeep: "running", api.EndStop: "stopped", api.EndRemove: "removed"}[req.End], Name: "new"})
	})
	return f
}

func (f *fake) find(ref string) (*api.VM, error) {
	var near []string
	var found *api.VM
	for i, vm := range f.vms {
		if vm.Name == ref || vm.ID == ref {
			return &f.vms[i], nil
		}
		if strings.HasPrefix(vm.Name, ref) || strings.HasPrefix(vm.ID, ref) {
			found = &f.vms[i]
			near = append(near, vm.Name)
		}
	}
	if len(near) == 1 {
		return found, nil
	}
	if len(near) > 1 {
		e := api.Errorf(api.KindInvalid, "vm %q is ambiguous", ref)
		e.Candidates = near
		return nil, e
	}
	return nil, api.Errorf(api.KindNotFound, "no vm %q", ref).WithHint("banger vm list")
}

func (f *fake) accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, []byte) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		panic(err)
	}
	conn.SetReadLimit(1 << 20)
	_, first, err := conn.Read(context.Background())
	if err != nil {
		panic(err)
	}
	return conn, first
}

func send(conn *websocket.Conn, ch api.Channel, v any) {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	_ = conn.Write(context.Background(), websocket.MessageBinary, append([]byte{byte(ch)}, b...))
}

// script is what a command does in the fake machine.
type script func(f *fake, conn *websocket.Conn, req api.Exec) api.Exit

// serve begins the command, lets the script run and ends it.
func (f *fake) serve(conn *websocket.Conn, req api.Exec, exit api.Exit) {
	if !slices.Contains(req.Argv, "nope") { // which cannot be run, so it never starts
		send(conn, api.ChannelStarted, api.Started{VM: "cccccccccccccccc", PID: 42})
	}
	if play, ok := f.script.Load().(script); ok {
		e := play(f, conn, req)
		e.VM, e.Name = exit.VM, exit.Name
		exit = e
	}
	send(conn, api.ChannelExit, exit)
	_, _, _ = conn.Read(context.Background()) // the client closes
}

// cat is a command that copies stdin to stdout, gives credit, takes note of
// signals, and ends by TERM.
func cat(f *fake, conn *websocket.Conn, _ api.Exec) api.Exit {
	for {
		_, b, err := conn.Read(context.Background())
		if err != nil {
			return api.Exit{Code: 129}
		}
		switch payload := b[1:]; api.Channel(b[0]) {
		case api.ChannelStdin:
			if len(payload) == 0 {
				send(conn, api.ChannelStderr, []byte("eof\n"))
				return api.Exit{Code: 7}
			}
			send(conn, api.ChannelStdout, payload)
			send(conn, api.ChannelCredit, binary.BigEndian.AppendUint32(nil, uint32(len(payload))))
		case api.ChannelSignal:
			f.mu.Lock()
			f.signals = append(f.signals, string(payload))
			f.mu.Unlock()
			if string(payload) == "TERM" {
				return api.Exit{Code: 143, Signal: "TERM"}
			}
		case api.ChannelResize:
			f.mu.Lock()
			f.resizes++
			f.mu.Unlock()
		}
	}
}

// world is a root folder with a fake daemon at its socket.
type world struct {
	t      *testing.T
	root   string
	fake   *fake
	env    map[string]string
	in     string
	server *http.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := emptyWorld(t)
	w.fake = newFake()
	l, err := layout.Resolve(w.getenv, os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Ensure(); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", l.DaemonSocket())
	if err != nil {
		t.Fatal(err)
	}
	w.server = &http.Server{Handler: w.fake}
	s := w.server
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Close(); <-done })
	return w
}

// emptyWorld has no daemon. Its folder is short: a socket must fit in.
func emptyWorld(t *testing.T) *world {
	t.Helper()
	root, err := os.MkdirTemp("", "bcli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return &world{t: t, root: filepath.Clean(root), env: map[string]string{"BANGER_ROOT": root, "TERM": "xterm"}}
}

func (w *world) getenv(k string) string { return w.env[k] }

// result is how one call went.
type result struct {
	Code     int
	Out, Err string
}

// call runs one command in this process.
func (w *world) call(args ...string) result {
	w.t.Helper()
	var out, errs bytes.Buffer
	code := Main(Env{
		Args: args, Stdin: strings.NewReader(w.in), Stdout: &out, Stderr: &errs, Getenv: w.getenv,
		Config: func(layout.Layout) (config.Config, error) {
			return config.Default(config.Facts{CPUs: 12, MemoryBytes: 64 << 30}), nil
		},
	})
	return result{code, out.String(), errs.String()}
}

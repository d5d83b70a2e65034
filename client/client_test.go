package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

// serve runs a handler on a Unix socket and gives a client of it.
func serve(t testing.TB, h http.Handler) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c := New(Options{Socket: socket, Build: "mine"})
	t.Cleanup(c.Close)
	return c
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	var got string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
		switch {
		case r.URL.Path == "/v1/vms" && r.Method == "GET", r.URL.Path == "/v1/events", r.URL.Path == "/v1/vms/prune", r.URL.Path == "/v1/operations/prune":
			fmt.Fprint(w, "[]")
		default:
			fmt.Fprint(w, "{}")
		}
	}))
	ctx := context.Background()
	two := 2
	drop := func(_ any, err error) error { return err }
	tests := []struct {
		want string
		do   func() error
	}{
		{"GET /v1/vms?filter=status%3Drunning&filter=label%3Da ", func() error { return drop(c.VMs(ctx, "status=running", "label=a")) }},
		{"GET /v1/vms/a%2F..%2Fb ", func() error { return drop(c.VM(ctx, "a/../b")) }},
		{`POST /v1/vms {"name":"web"}`, func() error { return drop(c.CreateVM(ctx, api.CreateVM{Name: "web"})) }},
		{`POST /v1/vms/web/start {}`, func() error { return drop(c.StartVM(ctx, "web")) }},
		{`POST /v1/vms/web/stop {"timeout_ms":5}`, func() error { return drop(c.StopVM(ctx, "web", api.StopVM{TimeoutMS: 5})) }},
		{`POST /v1/vms/web/restart {}`, func() error { return drop(c.RestartVM(ctx, "web")) }},
		{`DELETE /v1/vms/web?force=true `, func() error { return drop(c.DeleteVM(ctx, "web", true)) }},
		{`DELETE /v1/vms/web `, func() error { return drop(c.DeleteVM(ctx, "web", false)) }},
		{`POST /v1/vms/web/kill {"signal":"INT"}`, func() error { return drop(c.KillVM(ctx, "web", api.KillVM{Signal: "INT"})) }},
		{`POST /v1/vms/web/rename {"name":"x"}`, func() error { return drop(c.RenameVM(ctx, "web", api.RenameVM{Name: "x"})) }},
		{`PATCH /v1/vms/web {"vcpus":2}`, func() error { return drop(c.SetVM(ctx, "web", api.SetVM{VCPUs: &two})) }},
		{`GET /v1/vms/web/wait?for=exit&timeout_ms=1 `, func() error { return drop(c.WaitVM(ctx, "web", api.WaitExit, time.Microsecond)) }},
		{`POST /v1/vms/prune {"dry_run":true}`, func() error { return drop(c.PruneVMs(ctx, api.PruneVMs{DryRun: true})) }},
		{`GET /v1/images/a:b@c `, func() error { return drop(c.Image(ctx, "a:b@c")) }},
		{`POST /v1/kernels/pull {"name":"k","force":true}`, func() error { return drop(c.PullKernel(ctx, api.Pull{Name: "k", Force: true})) }},
		{`GET /v1/operations/o/wait `, func() error { return drop(c.WaitOperation(ctx, "o", 0)) }},
		{`POST /v1/operations/o/cancel {}`, func() error { return drop(c.CancelOperation(ctx, "o")) }},
		{`POST /v1/operations/prune {}`, func() error { return drop(c.PruneOperations(ctx)) }},
		{`GET /v1/events?since=7 `, func() error { return drop(c.Events(ctx, 7)) }},
		{`POST /v1/daemon/stop {}`, func() error { return c.StopDaemon(ctx) }},
		{`GET /v1/vms/web/logs?console=true&follow=true&since=2026-01-02T03%3A04%3A05Z&tail=0 `, func() error {
			r, err := c.VMLogs(ctx, "web", LogOptions{Follow: true, Console: true, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
			if err == nil {
				r.Close()
			}
			return err
		}},
	}
	for _, tt := range tests {
		if err := tt.do(); err != nil || got != tt.want {
			t.Errorf("error %v, request %q, want %q", err, got, tt.want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status int
		body   string
		want   api.Kind
	}{
		{"ours", 404, `{"error":{"kind":"not-found","message":"no","hint":"banger vm list"}}`, api.KindNotFound},
		{"a kind of tomorrow", 418, `{"error":{"kind":"new","message":"no"}}`, "new"},
		{"no body", 503, "", api.KindUnavailable},
		{"not JSON", 404, "<html>", api.KindUnsupported},
		{"empty error", 500, `{"error":null}`, api.KindInternal},
		{"success of the wrong shape", 200, `[]`, api.KindUnavailable},
		{"cut off", 200, `{"name":"w`, api.KindUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			_, err := c.VM(context.Background(), "web")
			if api.KindOf(err) != tt.want {
				t.Errorf("error %v of kind %q, want %q", err, api.KindOf(err), tt.want)
			}
			if _, ok := err.(*api.Error); !ok {
				t.Errorf("error is a %T", err)
			}
			_, err = c.Exec(context.Background(), "web", api.Exec{})
			if want := tt.want; tt.status != 200 && api.KindOf(err) != want {
				t.Errorf("exec: error %v of kind %q, want %q", err, api.KindOf(err), want)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	c := New(Options{Socket: filepath.Join(t.TempDir(), "none")})
	_, err := c.VMs(context.Background())
	if !NobodyListens(err) || api.KindOf(err) != api.KindUnavailable {
		t.Errorf("error %v of kind %q", err, api.KindOf(err))
	}
	if _, err = c.Exec(context.Background(), "x", api.Exec{}); !NobodyListens(err) {
		t.Errorf("exec: %v", err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	c := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.VMs(ctx); api.KindOf(err) != api.KindTimeout {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel2 := context.WithCancelCause(context.Background())
	cancel2(api.Errorf(api.KindCancelled, "stopped by the user"))
	if _, err := c.VMs(ctx); err == nil || err.Error() != "stopped by the user" {
		t.Errorf("cancel: %v", err)
	}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	build := "mine"
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(HeaderBuild) != "mine" {
			t.Error("no build in the request")
		}
		w.Header().Set(HeaderBuild, build)
		fmt.Fprint(w, "{}")
	}))
	for _, want := range []string{"", "other"} {
		if _, err := c.Daemon(context.Background()); err != nil || c.DaemonBuild() != want {
			t.Errorf("error %v, build %q, want %q", err, c.DaemonBuild(), want)
		}
		build = "other"
	}
}

func TestWatchOperation(t *testing.T) {
	t.Parallel()
	send := func(w http.ResponseWriter, op api.Operation) {
		b, _ := json.Marshal(op)
		fmt.Fprintf(w, ":\n\ndata: %s\n\n", b)
		w.(http.Flusher).Flush()
	}
	cut := false
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		send(w, api.Operation{ID: "o", Status: api.OperationRunning, Stage: "pull", Progress: api.Progress{Done: 1, Total: 2}})
		if cut {
			return
		}
		send(w, api.Operation{ID: "o", Status: api.OperationSucceeded, Result: json.RawMessage(`{"name":"web"}`)})
	}))
	var stages []string
	op, err := c.WatchOperation(context.Background(), "o", func(op api.Operation) { stages = append(stages, op.Stage) })
	if diff := cmp.Diff([]string{"pull", ""}, stages); err != nil || diff != "" {
		t.Fatalf("error %v, stages:\n%s", err, diff)
	}
	if vm, err := Result[api.VM](op); err != nil || vm.Name != "web" {
		t.Errorf("result %v, %v", vm, err)
	}
	cut = true
	if _, err = c.WatchOperation(context.Background(), "o", nil); api.KindOf(err) != api.KindUnavailable || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut stream: %v", err)
	}
}

func TestOperationError(t *testing.T) {
	t.Parallel()
	for status, want := range map[api.OperationStatus]api.Kind{
		api.OperationSucceeded: "", api.OperationCancelled: api.KindCancelled, api.OperationInterrupted: api.KindUnavailable,
		api.OperationFailed: api.KindInternal, "new": api.KindInternal,
	} {
		err := OperationError(api.Operation{ID: "o", Status: status})
		if api.KindOf(err) != want {
			t.Errorf("%s: kind %q, want %q", status, api.KindOf(err), want)
		}
		if err != nil && api.AsError(err).OperationID != "o" {
			t.Errorf("%s: no operation id", status)
		}
	}
}

func TestFollowEvents(t *testing.T) {
	t.Parallel()
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "id: 8\ndata: {\"id\":8,\"kind\":%q}\n\n", r.URL.RawQuery)
	}))
	var got []api.Event
	err := c.FollowEvents(context.Background(), 7, func(e api.Event) error { got = append(got, e); return nil })
	if diff := cmp.Diff([]api.Event{{ID: 8, Kind: "follow=true&since=7"}}, got); err != nil || diff != "" {
		t.Errorf("error %v\n%s", err, diff)
	}
}

// A daemon that goes away before it answers is asked again only for what may
// be asked twice.
func TestAskedAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, tt := range map[string]struct {
		do    func(*Client) error
		again bool
	}{
		"list":   {func(c *Client) error { _, err := c.VMs(ctx); return err }, true},
		"follow": {func(c *Client) error { _, err := c.WatchOperation(ctx, "o", nil); return err }, true},
		"exec": {func(c *Client) error {
			s, err := c.Exec(ctx, "web", api.Exec{})
			if err == nil {
				s.Close()
			}
			return err
		}, true},
		"create with a key": {func(c *Client) error {
			op, err := c.CreateVM(ctx, api.CreateVM{Name: "web", RequestID: "k\n\x00é"})
			if err == nil && op.ID != "web" {
				t.Errorf("the second request said %q", op.ID)
			}
			return err
		}, true},
		"create": {func(c *Client) error { _, err := c.CreateVM(ctx, api.CreateVM{Name: "web"}); return err }, false},
		"start":  {func(c *Client) error { _, err := c.StartVM(ctx, "web"); return err }, true},
		"set":    {func(c *Client) error { _, err := c.SetVM(ctx, "web", api.SetVM{}); return err }, false},
		"delete": {func(c *Client) error { _, err := c.DeleteVM(ctx, "web", true); return err }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Header.Get("Upgrade") != "":
					if conn, err := websocket.Accept(w, r, nil); err == nil {
						defer conn.CloseNow()
						_, _, _ = conn.Read(r.Context())
					}
				case r.Method == "POST":
					var req api.CreateVM
					_ = json.NewDecoder(r.Body).Decode(&req)
					_ = json.NewEncoder(w).Encode(api.Operation{ID: req.Name})
				case r.URL.Path == "/v1/vms":
					fmt.Fprint(w, "[]")
				default:
					fmt.Fprint(w, "data: {\"status\":\"succeeded\"}\n\n")
				}
			}))
			var dials atomic.Int32
			c.opts.Dial = func(ctx context.Context) (net.Conn, error) {
				if dials.Add(1) > 1 {
					return DialSocket(ctx, c.opts.Socket)
				}
				ours, theirs := net.Pipe() // connected to, and gone once it was asked
				go func() {
					_, _ = theirs.Read(make([]byte, 1))
					theirs.Close()
				}()
				return ours, nil
			}
			err := tt.do(c)
			if tt.again && (err != nil || dials.Load() != 2) || !tt.again && (api.KindOf(err) != api.KindUnavailable || dials.Load() != 1) {
				t.Errorf("after %d connections: %v", dials.Load(), err)
			}
		})
	}
}

// Twice is enough, and a cancelled request is not sent again.
func TestNotAskedForEver(t *testing.T) {
	t.Parallel()
	var dials atomic.Int32
	c := New(Options{Dial: func(context.Context) (net.Conn, error) {
		dials.Add(1)
		ours, theirs := net.Pipe()
		theirs.Close()
		return ours, nil
	}})
	t.Cleanup(c.Close)
	if _, err := c.VMs(context.Background()); api.KindOf(err) != api.KindUnavailable || dials.Load() != 2 {
		t.Errorf("after %d connections: %v", dials.Load(), err)
	}
	if _, err := c.Exec(context.Background(), "web", api.Exec{}); api.KindOf(err) != api.KindUnavailable || dials.Load() != 4 {
		t.Errorf("after %d connections: %v", dials.Load(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.VMs(ctx); api.KindOf(err) != api.KindCancelled || dials.Load() > 5 {
		t.Errorf("after %d connections: %v", dials.Load(), err)
	}
}

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/version"
)

// life is a daemon under way in serve, with services from build.
type life struct {
	client *http.Client
	l      layout.Layout
	ended  chan error
	stop   context.CancelFunc
}

func begin(t *testing.T, build func() (services, func(context.Context) error, error)) *life {
	t.Helper()
	l := testLayout(t)
	ln, err := listen(l)
	if err != nil {
		t.Fatal(err)
	}
	leaving, stop := context.WithCancel(t.Context())
	s := newServer(&server{
		log: slog.New(slog.NewTextHandler(t.Output(), nil)), info: version.Info{Version: "1", Build: "cafe"}, layout: l,
		config: func() []api.ConfigValue { return nil }, started: time.Now(), pid: os.Getpid(), leaving: leaving, stop: stop,
	})
	d := &life{l: l, ended: make(chan error, 1), stop: stop, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", l.DaemonSocket())
		},
	}}}
	go func() { d.ended <- serve(s, ln, build) }()
	t.Cleanup(stop)
	return d
}

func (d *life) get(t *testing.T, path string) (int, []byte) {
	t.Helper()
	res, err := d.client.Get("http://banger" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, b
}

func (d *life) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-d.ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the daemon does not leave")
		return nil
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	recovered := make(chan struct{})
	closed := make(chan struct{})
	store := &memoryEvents{}
	b, err := newBus(t.Context(), store, slog.New(slog.DiscardHandler), time.Now, api.Event{Kind: "daemon.started"})
	if err != nil {
		t.Fatal(err)
	}
	d := begin(t, func() (services, func(context.Context) error, error) {
		<-recovered
		return services{vms: &fakeVMs{}, operations: fakeOperations{}, events: b}, func(context.Context) error {
			b.Close()
			close(closed)
			return nil
		}, nil
	})
	if status, _ := d.get(t, "/v1/version"); status != 200 {
		t.Errorf("version before recovery: %d", status)
	}
	close(recovered)
	if status, _ := d.get(t, "/v1/vms"); status != 200 {
		t.Errorf("vms after recovery: %d", status)
	}
	res, err := d.client.Post("http://banger/v1/daemon/stop", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var account api.Daemon
	if err := json.NewDecoder(res.Body).Decode(&account); err != nil || account.PID != os.Getpid() || res.StatusCode != 202 {
		t.Errorf("stop: %d %+v %v", res.StatusCode, account, err)
	}
	res.Body.Close()
	if err := d.end(t); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	<-closed
	if _, err := os.Lstat(d.l.DaemonSocket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestServeTellsWhyItCannotStart(t *testing.T) {
	t.Parallel()
	d := begin(t, func() (services, func(context.Context) error, error) {
		return services{}, nil, api.Errorf(api.KindUnsupported, "cannot open the store: written by a newer banger")
	})
	status, body := d.get(t, "/v1/vms")
	if e := errorIn(t, body); status != 501 || e.Kind != api.KindUnsupported {
		t.Errorf("%d %s", status, body)
	}
	if err := d.end(t); api.KindOf(err) != api.KindUnsupported {
		t.Errorf("the daemon ended with %v", err)
	}
}

func TestServeEndsWithASignalWhileRecovering(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	var stopped context.CancelFunc
	ctx, stop := context.WithCancel(t.Context())
	stopped = stop
	d := begin(t, func() (services, func(context.Context) error, error) {
		close(began)
		<-ctx.Done()
		return services{}, nil, ctx.Err()
	})
	<-began
	d.stop()
	stopped()
	if err := d.end(t); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the daemon ended with %v", err)
	}
}

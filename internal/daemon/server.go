package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/version"
)

// The bounds of a request.
const (
	maxBody     = 1 << 20
	maxHeader   = 64 << 10
	headerTime  = 10 * time.Second
	bodyTime    = 30 * time.Second // to read a body, and to write a JSON reply
	idleTime    = 5 * time.Minute
	firstTime   = 30 * time.Second // for the first message of a WebSocket
	keepAlive   = 15 * time.Second // between comments on a quiet event stream
	goodbyeTime = 10 * time.Second // for requests under way when the daemon leaves
)

// services is what the handlers work on.
type services struct {
	vms        vmService
	images     imageService
	catalogs   catalogService
	kernels    kernelService
	system     systemService
	operations operationService
	events     eventService
	// doctor checks the host for a client of the build, which may be empty.
	doctor func(ctx context.Context, clientBuild string) []api.Check
}

// server is the HTTP door: the routes and what they need.
type server struct {
	mux     *http.ServeMux
	log     *slog.Logger
	info    version.Info
	layout  layout.Layout
	config  func() []api.ConfigValue
	started time.Time
	pid     int

	// services may be used once ready is closed; failed is then why they are
	// not there, if so.
	services
	ready  chan struct{}
	failed error

	// leaving ends when the daemon begins to leave; stop makes it.
	leaving context.Context
	stop    context.CancelFunc

	requests atomic.Int64 // under way
	served   atomic.Int64 // since the start
}

func newServer(s *server) *server {
	s.mux = http.NewServeMux()
	s.ready = make(chan struct{})
	for _, r := range routes() {
		s.mux.HandleFunc(r.method+" "+r.path, s.handle(r))
	}
	return s
}

// open lets the requests in that waited for the services.
func (s *server) open(sv services) {
	s.services = sv
	close(s.ready)
}

// fail lets them in too, to hear why there are none.
func (s *server) fail(err error) {
	s.failed = err
	close(s.ready)
}

// ServeHTTP counts the request, guards the process from its handler, and sends
// it to its route.
func (s *server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	defer s.served.Add(1)
	defer s.requests.Add(-1)
	w := &reply{ResponseWriter: rw}
	defer s.recoverPanic(w, r)
	w.Header().Set(version.HeaderBuild, s.info.Build)
	w.Header().Set("X-Content-Type-Options", "nosniff")

	if escaped := r.URL.EscapedPath(); path.Clean(escaped) != escaped {
		s.notFound(w, r)
		return
	}
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	probe := &refusal{header: http.Header{}}
	h.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		s.notFound(w, r)
		return
	}
	allow := probe.header.Get("Allow")
	w.Header().Set("Allow", allow)
	err := api.Errorf(api.KindInvalid, "cannot %s %s: the methods here are %s", clip(r.Method), clip(r.URL.Path), allow)
	s.writeErrorStatus(w, http.StatusMethodNotAllowed, err)
}

func (s *server) notFound(w http.ResponseWriter, r *http.Request) {
	s.writeError(w, api.Errorf(api.KindNotFound, "cannot find %s: no such route", clip(r.URL.Path)).
		WithHint("curl --unix-socket %s http://banger/v1/openapi.json", s.layout.DaemonSocket()))
}

// handle opens the gate of a route's access, runs its handler and turns its
// error into a reply.
func (s *server) handle(route route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := s.admit(r.Context(), route.access)
		if err == nil {
			err = route.handler(s, w, r)
		}
		if err != nil {
			s.writeError(w, err)
		}
	}
}

// errLeaving is what a request hears that the daemon can no longer serve.
func errLeaving() error {
	e := api.Errorf(api.KindUnavailable, "cannot serve the request: the daemon is stopping").WithHint("banger daemon status")
	e.Retryable = true
	return e
}

func (s *server) admit(ctx context.Context, a access) error {
	if a == always {
		return nil
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.leaving.Done():
		return errLeaving()
	}
	if s.failed != nil {
		return s.failed
	}
	if a == change && s.leaving.Err() != nil {
		return errLeaving()
	}
	return nil
}

// isReady says whether the services may be used.
func (s *server) isReady() bool {
	select {
	case <-s.ready:
		return s.failed == nil
	default:
		return false
	}
}

// following derives the context of a request that may last: it ends with the
// request, and when the daemon leaves.
func (s *server) following(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(r.Context())
	stop := context.AfterFunc(s.leaving, func() { cancel(errLeaving()) })
	return ctx, func() { stop(); cancel(nil) }
}

// causeOf names the reason a followed request ended where it was ours.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

func (s *server) recoverPanic(w *reply, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.logPanic(r, v)
	s.writeErrorStatus(w, http.StatusInternalServerError, errPanic(s, r))
}

func (s *server) logPanic(r *http.Request, v any) {
	s.log.Error("a handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
}

// errPanic is what the client hears of a panic that is in the log already.
func errPanic(s *server, r *http.Request) *api.Error {
	return api.Errorf(api.KindInternal, "cannot serve %s %s: a fault in banger, see the daemon's log", r.Method, r.URL.Path).
		WithHint("less %s", s.layout.DaemonLog())
}

// clip keeps what a client sent short enough for a message.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

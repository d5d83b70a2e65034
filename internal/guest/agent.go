package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// maxBody is the largest request body in bytes.
const maxBody = 64 << 10

// System is what the agent does to the whole machine. A nil method of Options'
// System is answered with unsupported.
type System struct {
	// Shutdown ends processes and cleans disks; the power goes off when the
	// returned function is called.
	Shutdown func(ctx context.Context, s guestapi.Shutdown) (guestapi.ShutdownReply, func())
	Sync     func()
	SetTime  func(time.Time) error
	Grow     func(role string) (int64, error)
	// Warnings are the parts of the boot that failed without stopping it.
	Warnings func() []string
}

// Options of an agent.
type Options struct {
	Build  string
	BootID string
	// Env, Workdir and User are defaults of every command, see guestapi.Config.
	Env     []string
	Workdir string
	User    string
	// Ready delays every request until it is closed; nil means ready.
	Ready  <-chan struct{}
	System System
	// spawn starts processes; nil stands for an ordinary process's way.
	spawn spawner
}

// Agent answers the API of package guestapi. One agent may serve several
// listeners.
type Agent struct {
	opts Options
	log  *slog.Logger
	http *http.Server

	wg      sync.WaitGroup // running commands' sessions
	buffers bigBuffers

	mu       sync.Mutex
	closing  bool // no new commands
	sessions map[*session]struct{}
}

// NewAgent makes an agent; Serve lets it answer.
func NewAgent(opts Options, log *slog.Logger) *Agent {
	if opts.spawn == nil {
		opts.spawn = &hostSpawner{}
	}
	a := &Agent{opts: opts, log: log, sessions: map[*session]struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/health", a.health)
	mux.HandleFunc("POST /v1/exec", a.exec)
	mux.HandleFunc("POST /v1/shutdown", a.shutdown)
	mux.HandleFunc("POST /v1/sync", a.sync)
	mux.HandleFunc("POST /v1/time", a.setTime)
	mux.HandleFunc("POST /v1/grow", a.grow)
	mux.HandleFunc("GET /v1/stats", a.stats)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		replyError(w, api.Errorf(api.KindNotFound, "cannot answer: the agent has no %s %.100q", r.Method, r.URL.Path))
	})
	a.http = &http.Server{
		Handler:           a.gate(mux),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return a
}

// Serve answers on l until l fails or the agent is closed.
func (a *Agent) Serve(l net.Listener) error {
	err := a.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends all listeners and connections; commands get HUP as when their
// clients had gone. It waits for them.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.closing = true
	for s := range a.sessions {
		_ = s.conn.Close()
	}
	a.mu.Unlock()
	err := a.http.Close()
	a.wg.Wait()
	return err
}

// gate waits for the boot to be done and bounds bodies.
func (a *Agent) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.opts.Ready != nil {
			select {
			case <-a.opts.Ready:
			case <-r.Context().Done():
				return
			}
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (a *Agent) health(w http.ResponseWriter, _ *http.Request) {
	h := guestapi.Health{Protocol: guestapi.Protocol, Build: a.opts.Build, BootID: a.opts.BootID, UptimeMS: uptime().Milliseconds()}
	if a.opts.System.Warnings != nil {
		h.Warnings = a.opts.System.Warnings()
	}
	reply(w, h)
}

func (a *Agent) sync(w http.ResponseWriter, _ *http.Request) {
	if a.opts.System.Sync != nil {
		a.opts.System.Sync()
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *Agent) setTime(w http.ResponseWriter, r *http.Request) {
	var t guestapi.Time
	if !decode(w, r, &t) {
		return
	}
	if a.opts.System.SetTime == nil {
		replyError(w, errUnsupported("set the clock"))
		return
	}
	if t.AdjustNano != 0 {
		if err := a.opts.System.SetTime(time.Now().Add(time.Duration(t.AdjustNano))); err != nil {
			replyError(w, err)
			return
		}
	}
	reply(w, guestapi.TimeReply{UnixNano: time.Now().UnixNano()})
}

func (a *Agent) grow(w http.ResponseWriter, r *http.Request) {
	var g guestapi.Grow
	if !decode(w, r, &g) {
		return
	}
	if a.opts.System.Grow == nil {
		replyError(w, errUnsupported("grow a disk"))
		return
	}
	n, err := a.opts.System.Grow(g.Role)
	if err != nil {
		replyError(w, err)
		return
	}
	reply(w, guestapi.GrowReply{Bytes: n})
}

// shutdown answers when the disks are clean, waits for the client to have the
// answer, then powers off.
func (a *Agent) shutdown(w http.ResponseWriter, r *http.Request) {
	var s guestapi.Shutdown
	if !decode(w, r, &s) {
		return
	}
	if a.opts.System.Shutdown == nil {
		replyError(w, errUnsupported("power off"))
		return
	}
	a.refuse()
	rep, off := a.opts.System.Shutdown(r.Context(), s)
	defer off()
	body, err := json.Marshal(rep)
	if err != nil {
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
	resp := http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Close: true,
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}
	if resp.Write(rw) == nil && rw.Flush() == nil {
		_, _ = rw.Read(make([]byte, 1)) // the client closes when it has read all
	}
}

func errUnsupported(what string) error {
	return api.Errorf(api.KindUnsupported, "cannot %s: this agent runs in no VM of its own", what)
}

// decode reads the JSON body into v; on an error it has answered.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		replyError(w, api.Errorf(api.KindInvalid, "cannot read the request: %w", err))
		return false
	}
	return true
}

func reply(w http.ResponseWriter, v any) { replyStatus(w, http.StatusOK, v) }

func replyError(w http.ResponseWriter, err error) {
	e := api.AsError(err)
	replyStatus(w, e.Kind.HTTPStatus(), api.ErrorReply{Error: e})
}

func replyStatus(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// refuse lets no more commands begin.
func (a *Agent) refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closing = true
}

// hangUp sends HUP to the commands on terminals.
func (a *Agent) hangUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.sessions {
		s.hangUp()
	}
}

// waitSessions waits until every client knows how its command ended.
func (a *Agent) waitSessions(patience time.Duration) {
	done := make(chan struct{})
	go func() { a.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
	}
}

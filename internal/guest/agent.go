package guest

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

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
	// Init is what the image's own init came to; nil where we are init.
	Init func() *guestapi.Init
}

// Options of an agent.
type Options struct {
	Build  string
	BootID string
	// Env, Workdir and User are defaults of every command, see guestapi.Config. No
	// User is the agent's own: root, in a guest.
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
	opts   Options
	log    *slog.Logger
	routes map[string]func(*call) // by method and path

	conns   sync.WaitGroup // connections being answered
	wg      sync.WaitGroup // running commands' sessions
	buffers bigBuffers

	mu       sync.Mutex
	closing  bool          // no new commands
	done     chan struct{} // closed with the agent: no new connections
	open     map[io.Closer]struct{}
	sessions map[*session]struct{}
}

// NewAgent makes an agent; Serve lets it answer.
func NewAgent(opts Options, log *slog.Logger) *Agent {
	if opts.User == "" {
		opts.User = strconv.Itoa(os.Geteuid())
	}
	if opts.spawn == nil {
		opts.spawn = &hostSpawner{}
	}
	a := &Agent{opts: opts, log: log, done: make(chan struct{}), open: map[io.Closer]struct{}{}, sessions: map[*session]struct{}{}}
	a.routes = map[string]func(*call){
		"GET /v1/health":    a.health,
		"POST /v1/exec":     a.exec,
		"POST /v1/shutdown": a.shutdown,
		"POST /v1/sync":     a.sync,
		"POST /v1/time":     a.setTime,
		"POST /v1/grow":     a.grow,
		"GET /v1/stats":     a.stats,
	}
	return a
}

// Close ends all listeners and connections; commands get HUP as when their
// clients had gone. It waits for them.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.closing = true
	if !a.closed() {
		close(a.done)
	}
	open := make([]io.Closer, 0, len(a.open))
	for c := range a.open {
		open = append(open, c)
	}
	a.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	a.conns.Wait()
	a.wg.Wait()
	return nil
}

func (a *Agent) health(c *call) {
	h := guestapi.Health{Protocol: guestapi.Protocol, Build: a.opts.Build, BootID: a.opts.BootID, UptimeMS: uptime().Milliseconds()}
	if a.opts.System.Warnings != nil {
		h.Warnings = a.opts.System.Warnings()
	}
	if a.opts.System.Init != nil {
		h.Init = a.opts.System.Init()
	}
	c.reply(h)
}

func (a *Agent) sync(c *call) {
	if a.opts.System.Sync != nil {
		a.opts.System.Sync()
	}
	c.replyStatus(204, nil)
}

func (a *Agent) setTime(c *call) {
	var t guestapi.Time
	if !c.decode(&t) {
		return
	}
	if a.opts.System.SetTime == nil {
		c.replyError(errUnsupported("set the clock"))
		return
	}
	if t.AdjustNano != 0 {
		if err := a.opts.System.SetTime(time.Now().Add(time.Duration(t.AdjustNano))); err != nil {
			c.replyError(err)
			return
		}
	}
	c.reply(guestapi.TimeReply{UnixNano: time.Now().UnixNano()})
}

func (a *Agent) grow(c *call) {
	var g guestapi.Grow
	if !c.decode(&g) {
		return
	}
	if a.opts.System.Grow == nil {
		c.replyError(errUnsupported("grow a disk"))
		return
	}
	n, err := a.opts.System.Grow(g.Role)
	if err != nil {
		c.replyError(err)
		return
	}
	c.reply(guestapi.GrowReply{Bytes: n})
}

// shutdown answers when the disks are clean, waits for the client to have the
// answer, then powers off.
func (a *Agent) shutdown(c *call) {
	var s guestapi.Shutdown
	if !c.decode(&s) {
		return
	}
	if a.opts.System.Shutdown == nil {
		c.replyError(errUnsupported("power off"))
		return
	}
	a.refuse()
	rep, off := a.opts.System.Shutdown(context.Background(), s)
	defer off()
	_ = c.conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
	c.reply(rep)
	_, _ = c.r.Read(make([]byte, 1)) // the client closes when it has read all
}

func errUnsupported(what string) error {
	return api.Errorf(api.KindUnsupported, "cannot %s: this agent runs in no VM of its own", what)
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

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/child"
	"github.com/bangervm/banger/internal/vmm/console"
	"github.com/bangervm/banger/internal/vmm/qemu/qmp"
)

// Machine is one running QEMU; Driver.Start makes it.
type Machine struct {
	id         string
	log        *slog.Logger
	process    *child.Process
	qmp        *qmp.Client
	link       link
	words      *child.Output
	scan       console.Scanner
	linkSocket string          // empty with vsock
	woken      chan net.Conn   // holds one: the guest link's first connection, if wake made it
	disks      map[string]disk // the writable ones, by serial
	events     chan qmp.Event  // from the QMP reader to keepRunning
	waits      chan string     // holds one: see Waits
	lost       chan struct{}   // holds one: the guest's kernel said timerLost
	started    time.Time
	stopping   chan struct{} // closed when QEMU says that it ends
	done       chan struct{}
	exit       vmm.Exit // valid once done is closed

	mu       sync.Mutex
	killed   bool   // Kill was called
	shutdown string // the reason in QEMU's SHUTDOWN event
	paused   bool   // Pause was called, and Resume was not
}

// link opens streams to the agent; Close ends those who dial.
type link interface {
	Dial(ctx context.Context) (net.Conn, error)
	Close() error
}

var (
	_ vmm.Machine = (*Machine)(nil)
	_ vmm.Waiter  = (*Machine)(nil)
)

// Waits gives why the guest waits for the host; see vmm.Waiter.
func (m *Machine) Waits() <-chan string { return m.waits }

// wait says so, in the goroutine of keepRunning.
func (m *Machine) wait(why string) {
	select {
	case <-m.waits: // out of date
	default:
	}
	m.waits <- why
}

// PID of QEMU.
func (m *Machine) PID() int { return m.process.PID() }

// Done is closed when QEMU is gone.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit is how it ended; valid once Done is closed.
func (m *Machine) Exit() vmm.Exit {
	<-m.done
	return m.exit
}

// DialGuest opens one stream to the agent.
func (m *Machine) DialGuest(ctx context.Context) (net.Conn, error) {
	if err := m.gate("reach the guest of"); err != nil {
		return nil, err
	}
	c, err := m.link.Dial(ctx)
	if err != nil {
		if gone := m.gate("reach the guest of"); gone != nil {
			return nil, gone
		}
		return nil, fmt.Errorf("cannot reach the guest of %s: %w", m.id, err)
	}
	return c, nil
}

// PowerButton presses ctrl-alt-del.
func (m *Machine) PowerButton(ctx context.Context) error {
	type key struct {
		Type string `json:"type"`
		Data string `json:"data"`
	}
	return m.execute(ctx, "press ctrl-alt-del on", "send-key", map[string]any{
		"keys": []key{{"qcode", "ctrl"}, {"qcode", "alt"}, {"qcode", "delete"}},
	})
}

// Pause stops the processors.
func (m *Machine) Pause(ctx context.Context) error {
	m.setPaused(true)
	return m.execute(ctx, "pause", "stop", nil)
}

// Resume lets the processors go on.
func (m *Machine) Resume(ctx context.Context) error {
	m.setPaused(false)
	return m.execute(ctx, "resume", "cont", nil)
}

func (m *Machine) setPaused(p bool) {
	m.mu.Lock()
	m.paused = p
	m.mu.Unlock()
}

// Kill ends QEMU at once.
func (m *Machine) Kill() error {
	if err := m.gate("kill"); err != nil {
		return err
	}
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	if err := m.process.Kill(); err != nil {
		return api.Errorf(api.KindInternal, "cannot kill %s: %w", m.id, err)
	}
	return nil
}

// gate refuses verbs after the end.
func (m *Machine) gate(verb string) error {
	select {
	case <-m.done:
		return api.Errorf(api.KindBadState, "cannot %s %s: it has ended", verb, m.id)
	default:
		return nil
	}
}

// execute runs one QMP command for the verb.
func (m *Machine) execute(ctx context.Context, verb, command string, arguments any) error {
	if err := m.gate(verb); err != nil {
		return err
	}
	err := m.qmp.Execute(ctx, command, arguments, nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, qmp.ErrClosed), errors.Is(err, net.ErrClosed):
		select {
		case <-m.done: // QEMU is on its way out
			return m.gate(verb)
		case <-ctx.Done():
			return api.Errorf(api.KindTimeout, "cannot %s %s: %w", verb, m.id, err)
		}
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot %s %s: %w", verb, m.id, err)
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.KindCancelled, "cannot %s %s: %w", verb, m.id, err)
	}
	return api.Errorf(api.KindInternal, "cannot %s %s: %w", verb, m.id, err)
}

// event takes QEMU's events, in the goroutine of the QMP reader.
func (m *Machine) event(e qmp.Event) {
	switch e.Name {
	case "SHUTDOWN":
		var data struct {
			Reason string `json:"reason"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			data.Reason = "unknown"
		}
		m.mu.Lock()
		if m.shutdown == "" {
			m.shutdown = data.Reason
			close(m.stopping)
		}
		m.mu.Unlock()
	case "STOP", "BLOCK_IO_ERROR":
		select {
		case m.events <- e:
		default: // watch is behind: it looks at the state, not at the number of events
		}
	}
}

// watch lives as long as the machine, and closes done.
func (m *Machine) watch(copied <-chan struct{}, serial net.Conn) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		m.keepRunning()
	}()
	m.awaitProcess()
	at := time.Now()
	<-m.qmp.Done() // its last events
	<-copied
	serial.Close()
	<-stopped
	m.link.Close()
	select {
	case c := <-m.woken: // nobody took it
		_ = c.Close()
	default:
	}
	if m.linkSocket != "" {
		os.Remove(m.linkSocket)
	}
	m.exit = m.ending(at)
	m.words.Close()
	m.log.Debug("qemu ended", "vm", m.id, "reason", m.exit.Reason, "detail", m.exit.Detail)
	close(m.done)
}

// exitPatience is how long QEMU may take to end once it said that it does. Some
// versions stand still instead when a command reaches them just then. What the
// guest has flushed is in the disks' files by that time.
const exitPatience = 3 * time.Second

// awaitProcess returns when the process is gone.
func (m *Machine) awaitProcess() {
	select {
	case <-m.process.Done():
		return
	case <-m.stopping:
	case <-m.qmp.Done():
		// Most often the process is gone in the next moment. One that lives on
		// cannot be controlled any more.
	}
	t := time.NewTimer(exitPatience)
	defer t.Stop()
	select {
	case <-m.process.Done():
	case <-t.C:
		m.mu.Lock()
		if m.shutdown == "" {
			m.shutdown = "its control channel broke"
		}
		m.mu.Unlock()
		m.log.Warn("QEMU lives on without its control channel, or although it says that it ends: killing it", "vm", m.id, "pid", m.PID())
		m.process.Kill()
		<-m.process.Done()
	}
}

// ending says why QEMU ended, from what it, the guest and its process said.
func (m *Machine) ending(at time.Time) vmm.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, panicked := m.scan.Panic()
	exit := vmm.Exit{At: at.UTC()}
	switch {
	case m.shutdown == "guest-shutdown":
		exit.Reason = vmm.ReasonPowerOff
	case m.shutdown == "guest-panic", m.shutdown == "guest-reset" && panicked:
		exit.Reason, exit.Detail = vmm.ReasonPanic, text
	case m.shutdown == "guest-reset":
		exit.Reason = vmm.ReasonReset
	case m.killed:
		exit.Reason = vmm.ReasonKilled
	default:
		exit.Reason, exit.Detail = vmm.ReasonCrashed, child.Describe(m.process.Err())
		if m.shutdown != "" {
			exit.Detail += ", " + m.shutdown
		}
		if said := lastWords(m.words); said != "" {
			exit.Detail += ": " + said
		}
	}
	return exit
}

package fake

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guest"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/console"
)

// Machine is one fake machine. Beside what vmm.Machine says it can be made to
// end as a guest or a VMM would: End.
type Machine struct {
	id     string
	agent  *guest.Agent
	link   *link
	silent bool
	print  *io.PipeWriter // the guest's side of the console
	ending chan vmm.Exit  // holds one: how it ends
	done   chan struct{}
	exit   vmm.Exit // valid once done is closed

	mu    sync.Mutex
	disks map[string]int64
}

var (
	_ vmm.Machine = (*Machine)(nil)
	_ vmm.Resizer = (*Machine)(nil)
)

func newMachine(spec vmm.Spec, out io.Writer, silent bool, log *slog.Logger) *Machine {
	m := &Machine{
		id: spec.ID, link: newLink(), silent: silent,
		ending: make(chan vmm.Exit, 1), done: make(chan struct{}), disks: map[string]int64{},
	}
	for _, d := range spec.Disks {
		if fi, err := os.Stat(d.Path); err == nil && !d.ReadOnly {
			m.disks[d.Serial] = fi.Size()
		}
	}
	var clock sync.Mutex
	m.agent = guest.NewAgent(guest.Options{Build: "fake", BootID: spec.ID, System: guest.System{
		Shutdown: func(context.Context, guestapi.Shutdown) (guestapi.ShutdownReply, func()) {
			return guestapi.ShutdownReply{}, func() { m.End(vmm.ReasonPowerOff, "") }
		},
		Sync: func() {},
		SetTime: func(time.Time) error {
			clock.Lock() // nothing to set, but one at a time as in a guest
			defer clock.Unlock()
			return nil
		},
		Grow: func(role string) (int64, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			n, ok := m.disks[role]
			if !ok {
				return 0, api.Errorf(api.KindInvalid, "cannot grow disk %q: there is none", role)
			}
			return n, nil
		},
	}}, log)
	r, w := io.Pipe()
	m.print = w
	go m.live(r, out)
	return m
}

// live is the machine's life.
func (m *Machine) live(r io.Reader, out io.Writer) {
	var wg sync.WaitGroup
	var scan console.Scanner
	wg.Go(func() { console.Copy(out, r, &scan) })
	wg.Go(func() { m.agent.Serve(m.link) })
	io.WriteString(m.print, "fake machine "+m.id+"\n")
	exit := <-m.ending
	m.link.Close()
	m.agent.Close()
	m.print.Close()
	wg.Wait()
	exit.At = time.Now().UTC()
	m.exit = exit
	close(m.done)
}

// Print writes to the guest's console.
func (m *Machine) Print(text string) { io.WriteString(m.print, text) }

// End ends the machine for the reason, unless it is ending already.
func (m *Machine) End(reason vmm.Reason, detail string) {
	select {
	case m.ending <- vmm.Exit{Reason: reason, Detail: detail}:
	default:
	}
}

// PID is our own: there is no other process.
func (m *Machine) PID() int { return os.Getpid() }

func (m *Machine) gate(verb string) error {
	select {
	case <-m.done:
		return api.Errorf(api.KindBadState, "cannot %s %s: it has ended", verb, m.id)
	default:
		return nil
	}
}

// DialGuest opens a stream to the agent.
func (m *Machine) DialGuest(ctx context.Context) (net.Conn, error) {
	if err := m.gate("reach the guest of"); err != nil {
		return nil, err
	}
	if m.silent {
		select {
		case <-ctx.Done():
			return nil, api.Errorf(api.KindTimeout, "cannot reach the guest: the agent does not answer")
		case <-m.done:
			return nil, m.gate("reach the guest of")
		}
	}
	conn, err := m.link.dial(ctx)
	if err != nil {
		return nil, api.Errorf(api.KindUnavailable, "cannot reach the guest of %s: %w", m.id, err)
	}
	return conn, nil
}

// PowerButton makes the guest power off.
func (m *Machine) PowerButton(context.Context) error {
	err := m.gate("press ctrl-alt-del on")
	if err == nil {
		m.End(vmm.ReasonPowerOff, "")
	}
	return err
}

// Pause stops the guest's answers.
func (m *Machine) Pause(context.Context) error {
	err := m.gate("pause")
	if err == nil {
		m.link.pause()
	}
	return err
}

// Resume lets it go on.
func (m *Machine) Resume(context.Context) error {
	err := m.gate("resume")
	if err == nil {
		m.link.resume()
	}
	return err
}

// Resize makes a disk larger.
func (m *Machine) Resize(_ context.Context, serial string, bytes int64) error {
	if err := m.gate("resize a disk of"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	have, ok := m.disks[serial]
	switch {
	case !ok:
		return api.Errorf(api.KindNotFound, "cannot resize a disk of %s: it has no writable disk %q", m.id, serial)
	case bytes < have:
		return api.Errorf(api.KindInvalid, "cannot resize disk %q of %s: %d bytes are less than the %d it has", serial, m.id, bytes, have)
	}
	m.disks[serial] = bytes
	return nil
}

// Kill ends the machine.
func (m *Machine) Kill() error {
	err := m.gate("kill")
	if err == nil {
		m.End(vmm.ReasonKilled, "")
	}
	return err
}

// Done is closed at the end.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit says how it ended.
func (m *Machine) Exit() vmm.Exit {
	<-m.done
	return m.exit
}

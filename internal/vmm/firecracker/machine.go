package firecracker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/host/cgroup"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/cell"
	"github.com/bangervm/banger/internal/vmm/child"
	"github.com/bangervm/banger/internal/vmm/console"
	"github.com/bangervm/banger/internal/vmm/firecracker/fcapi"
)

// Machine is one running Firecracker; Driver.Start makes it.
type Machine struct {
	id       string
	log      *slog.Logger
	cell     *cell.Cell
	api      *fcapi.Client
	words    *child.Output
	pipes    *pipes
	who      *identity     // nil: its user is ours
	group    *cgroup.Group // nil: none
	scan     console.Scanner
	patience time.Duration // for one answer, while it is started
	folder   string        // of its own files, gone after the end
	link     string        // its vsock's socket
	disks    map[string]disk
	done     chan struct{}
	exit     vmm.Exit // valid once done is closed

	mu     sync.Mutex
	killed bool // Kill was called
	halted bool // the guest's kernel said that the power is off
}

// disk is a writable disk of a machine.
type disk struct {
	id    string // Firecracker's name for it
	path  string // as Firecracker sees it
	bytes int64  // when the machine was started
}

var (
	_ vmm.Machine = (*Machine)(nil)
	_ vmm.Resizer = (*Machine)(nil)
	_ vmm.Tapper  = (*Machine)(nil)
)

// PID of Firecracker.
func (m *Machine) PID() int { return m.cell.PID() }

// Tap is the other end of the guest's network device; nil without one.
func (m *Machine) Tap() *os.File { return m.cell.Tap }

// Done is closed when Firecracker is gone.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit is how it ended; valid once Done is closed.
func (m *Machine) Exit() vmm.Exit {
	<-m.done
	return m.exit
}

// PowerButton presses ctrl-alt-del.
func (m *Machine) PowerButton(ctx context.Context) error {
	return m.request(ctx, "press ctrl-alt-del on", func(ctx context.Context) error {
		return m.api.Put(ctx, "/actions", fcapi.Action{Type: fcapi.SendCtrlAltDel})
	})
}

// Pause stops the processors.
func (m *Machine) Pause(ctx context.Context) error {
	return m.request(ctx, "pause", func(ctx context.Context) error { return m.api.Patch(ctx, "/vm", fcapi.VM{State: fcapi.Paused}) })
}

// Resume lets the processors go on.
func (m *Machine) Resume(ctx context.Context) error {
	return m.request(ctx, "resume", func(ctx context.Context) error { return m.api.Patch(ctx, "/vm", fcapi.VM{State: fcapi.Resumed}) })
}

// Resize makes Firecracker open the disk anew, and tell the guest its size.
func (m *Machine) Resize(ctx context.Context, serial string, bytes int64) error {
	d, ok := m.disks[serial]
	switch {
	case !ok:
		return api.Errorf(api.KindNotFound, "cannot resize a disk of %s: it has no writable disk %q", m.id, serial)
	case bytes < d.bytes:
		return api.Errorf(api.KindInvalid, "cannot resize disk %q of %s: %d bytes are less than the %d it has", serial, m.id, bytes, d.bytes)
	}
	return m.request(ctx, "resize a disk of", func(ctx context.Context) error {
		return m.api.Patch(ctx, "/drives/"+d.id, fcapi.DriveUpdate{ID: d.id, Path: d.path})
	})
}

// Kill ends Firecracker at once.
func (m *Machine) Kill() error {
	if err := m.gate("kill"); err != nil {
		return err
	}
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	if err := m.cell.Kill(); err != nil {
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

// request makes one request of the API for the verb. A Firecracker that hangs is
// not waited for longer than its patience, whatever the caller's.
func (m *Machine) request(ctx context.Context, verb string, ask func(context.Context) error) error {
	if err := m.gate(verb); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, min(m.patience, runPatience))
	defer cancel()
	err := ask(ctx)
	var fault *fcapi.Fault
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot %s %s: Firecracker does not answer", verb, m.id)
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.KindCancelled, "cannot %s %s: %w", verb, m.id, err)
	case errors.As(err, &fault):
		return api.Errorf(api.KindInternal, "cannot %s %s: Firecracker says: %w", verb, m.id, err)
	}
	// The connection broke: it is on its way out.
	select {
	case <-m.done:
		return m.gate(verb)
	case <-ctx.Done():
		return api.Errorf(api.KindTimeout, "cannot %s %s: %w", verb, m.id, err)
	case <-time.After(exitPatience):
		return api.Errorf(api.KindUnavailable, "cannot %s %s: %w", verb, m.id, err)
	}
}

// runPatience is how long a Firecracker that runs may take for one answer, which
// takes milliseconds.
const runPatience = 20 * time.Second

// exitPatience is how long Firecracker may live on after its API broke off.
const exitPatience = 3 * time.Second

// What the guest's kernel says last when it cannot switch the power off, which
// no Firecracker on x86 lets it: it then stands still for ever, with its disks
// clean. A reset it can do, and that ends Firecracker.
const (
	markHalted   = "reboot: System halted"
	markPowerOff = "reboot: Power down"
)

// haltedLine is such a line, with the kernel's time or without. With it, the line
// may begin with what a program printed: its end of line may come later or never.
var haltedLine = regexp.MustCompile(`(?:^|\[ *\d+\.\d+\] )reboot: (?:System halted|Power down)\s*$`)

// lastLine hears the lines with those marks, and cuts the power. Whoever may print on
// the guest's console, its root as a rule, can do that too, and so end the machine.
func (m *Machine) lastLine(line string) {
	if !haltedLine.MatchString(line) {
		return
	}
	m.mu.Lock()
	m.halted = true
	m.mu.Unlock()
	if err := m.cell.Kill(); err != nil {
		m.log.Error("cannot end Firecracker after the guest's power-off", "vm", m.id, "error", err)
	}
}

// watch lives as long as the machine, and closes done.
func (m *Machine) watch(copied <-chan struct{}, serial net.Conn) {
	<-m.cell.Done()
	at := time.Now()
	<-copied
	_ = serial.Close()
	m.pipes.close()
	m.api.Close()
	if err := os.RemoveAll(m.folder); err != nil {
		m.log.Error("cannot remove the files of Firecracker", "vm", m.id, "error", err)
	}
	m.exit = m.ending(at)
	if m.group != nil {
		if err := m.group.Remove(); err != nil {
			m.log.Error("cannot remove the control group of Firecracker", "vm", m.id, "error", err)
		}
	}
	m.who.release()
	m.words.Close()
	m.log.Debug("firecracker ended", "vm", m.id, "reason", m.exit.Reason, "detail", m.exit.Detail)
	close(m.done)
}

// ending says why Firecracker ended, from what the guest and its process said.
func (m *Machine) ending(at time.Time) vmm.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, panicked := m.scan.Panic()
	exit := vmm.Exit{At: at.UTC()}
	err := m.cell.Err()
	switch {
	case m.halted:
		exit.Reason = vmm.ReasonPowerOff
	case err == nil && panicked:
		exit.Reason, exit.Detail = vmm.ReasonPanic, text
	case err == nil:
		exit.Reason = vmm.ReasonReset
	case m.killed:
		exit.Reason = vmm.ReasonKilled
	default:
		exit.Reason, exit.Detail = vmm.ReasonCrashed, describe(err)
		if m.group != nil && m.group.OutOfMemory() {
			exit.Detail += ": it used more memory than its control group may"
		}
		if said := lastWords(m.words); said != "" {
			exit.Detail += ": " + said
		}
	}
	return exit
}

// pipes are what Firecracker writes its log and figures into.
type pipes struct {
	files []*os.File
	wg    sync.WaitGroup
	once  sync.Once
}

// openPipes reads both pipes of the folder: the log into words, of the figures
// the newest into a file, if it has a name.
func openPipes(folder string, words *child.Output, metricsFile string, log *slog.Logger) (*pipes, error) {
	p := &pipes{}
	for name, read := range map[string]func(*os.File){
		logFIFO:     func(f *os.File) { copyLog(words, f) },
		metricsFIFO: func(f *os.File) { keepMetrics(f, metricsFile, log) },
	} {
		f, err := openFIFO(filepath.Join(folder, name))
		if err != nil {
			p.close()
			return nil, err
		}
		p.files = append(p.files, f)
		p.wg.Go(func() { read(f) })
	}
	return p, nil
}

// close takes what is still in the pipes, and ends. It may be called again.
func (p *pipes) close() { p.once.Do(p.drain) }

func (p *pipes) drain() {
	for _, f := range p.files {
		// The readers take what is there before they see the deadline.
		deadline := time.Unix(1, 0)
		if !empty(f) {
			deadline = time.Now().Add(drainTime)
		}
		_ = f.SetReadDeadline(deadline)
	}
	p.wg.Wait()
	for _, f := range p.files {
		_ = f.Close()
	}
}

// drainTime bounds the reading of what a VMM that is gone left in its pipes.
const drainTime = 20 * time.Millisecond

// empty says whether nothing is in the pipe.
func empty(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	n := 0
	if cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); cerr != nil {
		return true
	}
	return err != nil || n == 0
}

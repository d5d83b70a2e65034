package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/cell"
	"github.com/bangervm/banger/internal/vmm/child"
	"github.com/bangervm/banger/internal/vmm/console"
	"github.com/bangervm/banger/internal/vmm/firecracker/fcapi"
)

const (
	spareFiles   = 1100 // a thousand vsock connections, and its own
	spareThreads = 16
)

// Start launches Firecracker; see vmm.Driver. Errors are of the kinds unavailable
// (no Firecracker, no memory, it does not do as it should), unsupported (its
// version, no KVM, no namespaces), denied (no access to /dev/kvm), busy (a disk
// is in use by another machine), timeout, cancelled and invalid (the spec).
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, out io.Writer) (vmm.Machine, error) {
	path, err := d.find()
	if err != nil {
		return nil, err
	}
	if err := validate(spec); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, ended(ctx)
	}
	if err := usableKVM(d.opts.KVM); err != nil {
		return nil, err
	}
	m, err := d.launch(ctx, path, spec, out)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (d *Driver) launch(ctx context.Context, path string, spec vmm.Spec, out io.Writer) (_ *Machine, err error) {
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	fail := func(err error) error { return api.Errorf(api.KindInternal, "cannot start Firecracker: %w", err) }

	own, err := makeFolder(spec.RunDir)
	if err != nil {
		return nil, fail(err)
	}
	undo = append(undo, func() { _ = os.RemoveAll(own) })
	locked, err := lockDisks(spec.Disks)
	if err != nil {
		return nil, err
	}
	defer closeAll(locked) // it has its own
	words, err := child.NewOutput(spec.LogFile)
	if err != nil {
		return nil, fail(err)
	}
	undo = append(undo, words.Close)
	pipes, err := openPipes(own, words, spec.MetricsFile, d.log)
	if err != nil {
		return nil, fail(err)
	}
	undo = append(undo, pipes.close)
	serial, serialFD, err := child.Pair("console")
	if err != nil {
		return nil, fail(err)
	}
	defer serialFD.Close()
	undo = append(undo, func() { _ = serial.Close() })

	closed := static(path)
	at, binds := placesOf(spec, d.opts.KVM, closed)
	plan := d.plan(path, spec, at, binds)
	var who *identity
	if !closed {
		d.log.Warn("this Firecracker needs other files to run: it sees all of the host's", "program", path)
	} else if who, err = claim(spec.ID); err != nil {
		return nil, fail(err)
	}
	if who != nil {
		undo = append(undo, who.release)
		plan.UID = who.uid
		if err := who.give(spec, own, locked); err != nil {
			return nil, fail(err)
		}
	}
	group, err := d.group(spec)
	if err != nil {
		return nil, fail(err)
	}
	in := cell.Options{Self: d.opts.Self, Stdout: serialFD, Stderr: words, Files: locked}
	if group != nil {
		undo = append(undo, func() { _ = group.Remove() })
		in.Cgroup = group.Folder()
	}
	c, err := cell.Open(ctx, plan, in)
	if err != nil {
		return nil, startError(err)
	}
	undo = append(undo, func() {
		c.End()
		if c.Tap != nil {
			_ = c.Tap.Close()
		}
	})
	serialFD.Close()

	m := &Machine{
		id: spec.ID, log: d.log, cell: c, api: fcapi.New(filepath.Join(own, apiSocket)), words: words, pipes: pipes,
		who: who, group: group, patience: d.patience, folder: own, link: filepath.Join(own, linkSocket), disks: disksOf(spec, at), done: make(chan struct{}),
	}
	undo = append(undo, m.api.Close)
	m.scan.Marks, m.scan.Marked = []string{markHalted, markPowerOff}, m.lastLine
	// The guest begins to print before the last request is answered.
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		console.Copy(out, serial, &m.scan)
	}()
	undo = append(undo, func() { // the process is gone by then: the last to be pushed is undone first
		c.End()
		<-copied
	})
	if err := m.configure(ctx, path, spec, at); err != nil {
		return nil, err
	}
	go m.watch(copied, serial)
	return m, nil
}

// plan is the cell of one Firecracker.
func (d *Driver) plan(path string, spec vmm.Spec, at places, binds []cell.Bind) cell.Plan {
	p := cell.Plan{
		Program: path, Binds: binds, Store: filepath.Join(spec.RunDir, folder),
		Args: []string{
			programName, "--id", spec.ID, "--api-sock", at.own(apiSocket),
			"--log-path", at.own(logFIFO), "--level", "Info",
		},
		Limits: cell.Limits{
			AddressSpace: uint64(spec.MemoryBytes) + d.spare, Files: spareFiles, Processes: uint64(spec.VCPUs) + spareThreads,
		},
	}
	if n := spec.Network; n != nil {
		p.Tap = &cell.Tap{Name: tapName, MTU: n.MTU}
	}
	return p
}

func disksOf(spec vmm.Spec, at places) map[string]disk {
	disks := map[string]disk{}
	for i, d := range spec.Disks {
		if fi, err := os.Stat(d.Path); err == nil && !d.ReadOnly {
			disks[d.Serial] = disk{driveID(i), at.disks[i], fi.Size()}
		}
	}
	return disks
}

// configure tells Firecracker what to be, and starts the guest.
func (m *Machine) configure(ctx context.Context, program string, spec vmm.Spec, at places) error {
	if err := m.awaitAPI(ctx); err != nil {
		return m.explain(ctx, spec, "come up", err)
	}
	var text string
	if err := m.ask(ctx, func(ctx context.Context) (err error) {
		text, err = m.api.Version(ctx)
		return err
	}); err != nil {
		return m.explain(ctx, spec, "tell its version", err)
	}
	v, ok := parseVersion(text)
	if !ok {
		return api.Errorf(api.KindUnsupported, "cannot start Firecracker: %s calls its version %.40q", program, text).WithHint(fetchHint)
	}
	note, err := v.usable(program)
	if err != nil {
		return err
	}
	for _, s := range setup(spec, v, at) {
		if err := m.ask(ctx, func(ctx context.Context) error { return m.api.Put(ctx, s.path, s.body) }); err != nil {
			return m.explain(ctx, spec, "take its "+s.what, err)
		}
	}
	m.log.Debug("firecracker started", "vm", m.id, "pid", m.PID(), "version", v.String(), "note", note)
	return nil
}

// ask bounds one request.
func (m *Machine) ask(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, m.patience)
	defer cancel()
	// A process that is gone answers no more.
	go func() {
		select {
		case <-m.cell.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return do(ctx)
}

// awaitAPI waits until the API's socket is there.
func (m *Machine) awaitAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.patience)
	defer cancel()
	path := filepath.Join(m.folder, apiSocket)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		var dialer net.Dialer
		c, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			return c.Close()
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) && ctx.Err() == nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-m.cell.Done():
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// explain says why Firecracker did not do what it should have. It is ended first.
func (m *Machine) explain(ctx context.Context, spec vmm.Spec, what string, cause error) error {
	died := false
	select {
	case <-m.cell.Done():
		died = true
	default:
		var fault *fcapi.Fault
		if !errors.As(cause, &fault) && ctx.Err() == nil && !errors.Is(cause, context.DeadlineExceeded) {
			// The connection broke, so it is ending; its last words are of use.
			select {
			case <-m.cell.Done():
				died = true
			case <-time.After(exitPatience):
			}
		}
		m.cell.End()
	}
	m.pipes.close()
	if ctx.Err() != nil {
		return ended(ctx)
	}
	said := cause.Error()
	if died {
		said = describe(m.cell.Err())
		if last := lastWords(m.words); last != "" {
			said += ": " + last
		}
		return fromWords(spec, "cannot start Firecracker: it ended: %s", said)
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return api.Errorf(api.KindUnavailable, "cannot start Firecracker: it hangs: its API did not %s within %s", what, m.patience).WithHint("banger doctor")
	}
	return fromWords(spec, "cannot start Firecracker: it does not "+what+": %s", said)
}

// fromWords finds what people can mend in what Firecracker said.
func fromWords(spec vmm.Spec, format, said string) error {
	denied := strings.Contains(said, "os error 13") || strings.Contains(said, "ermission denied")
	switch {
	case denied && strings.Contains(strings.ToLower(said), "kvm"):
		return api.Errorf(api.KindDenied, format, said).WithHint("sudo usermod -aG kvm $USER")
	case strings.Contains(strings.ToLower(said), "kvm"):
		return api.Errorf(api.KindUnsupported, format, said).WithHint("banger doctor")
	case strings.Contains(said, "os error 12"), strings.Contains(said, "annot allocate memory"):
		return api.Errorf(api.KindUnavailable, format, fmt.Sprintf("no %d MiB of memory: %s", spec.MemoryBytes>>20, said))
	}
	return api.Errorf(api.KindUnavailable, format, said).WithHint("banger doctor")
}

// startError puts what failed before the error of a cell.
func startError(err error) error {
	e := *api.AsError(err)
	e.Message = "cannot start Firecracker: " + e.Message
	return &e
}

// ended is the error of a start that was given up.
func ended(ctx context.Context) error {
	kind := api.KindCancelled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = api.KindTimeout
	}
	return api.Errorf(kind, "cannot start Firecracker: %w", ctx.Err())
}

package qemu

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestlink"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/child"
	"github.com/bangervm/banger/internal/vmm/console"
	"github.com/bangervm/banger/internal/vmm/qemu/qmp"
)

// linkSocket is the name of the guest link's socket in the run folder; the same
// as layout.VMDir.LinkSocket.
const linkSocket = "link.sock"

// Start launches QEMU; see vmm.Driver. Errors are of the kinds unavailable (no
// QEMU, no memory), unsupported (QEMU too old), denied (no access to /dev/kvm),
// busy (a disk is in use by another machine) and invalid (the spec).
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, out io.Writer) (vmm.Machine, error) {
	path, err := d.find()
	if err != nil {
		return nil, err
	}
	var khz int64
	if spec.Accelerator == vmm.TCG {
		khz = tscKHz(d.tsc)
	}
	if err := validate(spec); err != nil {
		return nil, err
	}
	var mem memory
	if spec.Template != nil {
		mem = memory{path: spec.Template.Memory}
	}
	m, err := d.launch(ctx, path, khz, spec, mem, out)
	if err != nil {
		return nil, err
	}
	if spec.Template != nil {
		w := *spec.Wake
		if spec.Network != nil {
			w.MAC = spec.Network.MAC
		}
		if err := m.wake(ctx, w); err != nil {
			_ = m.Kill() // it may have ended
			<-m.Done()
			return nil, err
		}
	}
	d.log.Debug("qemu started", "vm", spec.ID, "pid", m.PID(), "version", m.qmp.Version(), "tsc_khz", khz)
	return m, nil
}

func (d *Driver) launch(ctx context.Context, path string, khz int64, spec vmm.Spec, mem memory, out io.Writer) (_ *Machine, err error) {
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	fail := func(err error) error {
		return api.Errorf(api.KindInternal, "cannot start QEMU: %w", err)
	}

	control, controlFD, err := child.Pair("qmp")
	if err != nil {
		return nil, fail(err)
	}
	defer controlFD.Close()
	undo = append(undo, func() { control.Close() })
	serial, serialFD, err := child.Pair("console")
	if err != nil {
		return nil, fail(err)
	}
	defer serialFD.Close()
	undo = append(undo, func() { serial.Close() })
	e, err := d.openLink(spec)
	if err != nil {
		return nil, err
	}
	defer e.file.Close()
	undo = append(undo, e.close)
	words, err := child.NewOutput(spec.LogFile)
	if err != nil {
		return nil, fail(err)
	}
	undo = append(undo, words.Close)

	disks := map[string]disk{}
	for i, d := range spec.Disks {
		if fi, err := os.Stat(d.Path); err == nil && !d.ReadOnly {
			disks[d.Serial] = disk{diskNode(i), fi.Size()}
		}
	}

	cmd := exec.Command(path, arguments(spec, khz, e.cid, mem)...)
	cmd.Stdout, cmd.Stderr = words, words
	cmd.ExtraFiles = []*os.File{controlFD, serialFD, e.file}
	if t := spec.Template; t != nil {
		state, err := feed(t.State)
		if err != nil {
			return nil, fail(err)
		}
		defer state.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, state)
	}
	cmd.Dir = "/"
	p, err := child.Start(cmd)
	if err != nil {
		return nil, fail(err)
	}
	undo = append(undo, p.End)
	if mem.shared { // for machines to come: those that are here go first
		_ = unix.Setpriority(unix.PRIO_PROCESS, p.PID(), templateNice)
	}

	m := &Machine{
		id: spec.ID, log: d.log, process: p, words: words, link: e.link, linkSocket: e.socket, woken: e.woken, disks: disks,
		done: make(chan struct{}), events: make(chan qmp.Event, 64), waits: make(chan string, 1),
		lost: make(chan struct{}, 1), started: time.Now(), stopping: make(chan struct{}),
	}
	if spec.Template == nil { // one of a template has its timer, and QEMU nothing to reset it to
		m.scan.Marks, m.scan.Marked = []string{timerLost}, func(string) {
			select {
			case m.lost <- struct{}{}:
			default:
			}
		}
	}
	// QEMU that ends at once, e.g. over a wrong argument, closes the connection.
	controlFD.Close()
	m.qmp, err = qmp.New(ctx, control, m.event)
	if err != nil {
		p.End()
		return nil, d.explain(ctx, spec, err, p, words)
	}
	if spec.Template != nil {
		err = m.restore(ctx)
	}
	if err == nil {
		err = m.limit(ctx, spec)
	}
	if err == nil {
		err = m.qmp.Execute(ctx, "cont", nil, nil)
	}
	if err != nil {
		p.End()
		return nil, d.explain(ctx, spec, err, p, words)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		console.Copy(out, serial, &m.scan)
	}()
	go m.watch(copied, serial)
	return m, nil
}

// end is our part of the guest link before QEMU runs.
type end struct {
	file   *os.File // QEMU inherits it
	link   link
	socket string        // path, with virtio-serial
	woken  chan net.Conn // the link's first connection, where one was made already
	cid    uint32        // context id, with vsock
}

func (e end) close() {
	e.link.Close()
	if e.socket != "" {
		os.Remove(e.socket)
	}
}

// openLink makes the host's end of the guest link.
func (d *Driver) openLink(spec vmm.Spec) (end, error) {
	if spec.Transport == guestapi.TransportVsock {
		v, err := openVhostVsock(vhostDevice)
		if err != nil {
			return end{}, err
		}
		return end{file: v.file, link: newVsockLink(v.cid, spec.LinkToken), cid: v.cid}, nil
	}
	path := filepath.Join(spec.RunDir, linkSocket)
	f, err := listen(path)
	if err != nil {
		return end{}, api.Errorf(api.KindInternal, "cannot start QEMU: %w", err)
	}
	woken := make(chan net.Conn, 1)
	mux := guestlink.NewMux(func(ctx context.Context) (net.Conn, error) {
		select {
		case c := <-woken:
			return c, nil
		default:
		}
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", path)
	}, d.log)
	return end{file: f, link: mux, socket: path, woken: woken}, nil
}

// explain says why QEMU did not come up. The process is gone.
func (d *Driver) explain(ctx context.Context, spec vmm.Spec, cause error, p *child.Process, words *child.Output) error {
	if ctx.Err() != nil {
		kind := api.KindCancelled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			kind = api.KindTimeout
		}
		return api.Errorf(kind, "cannot start QEMU: %w", ctx.Err())
	}
	said := lastWords(words)
	switch {
	case strings.Contains(said, "Could not access KVM") && strings.Contains(said, "ermission denied"):
		return api.Errorf(api.KindDenied, "cannot start QEMU: %s", said).WithHint("sudo usermod -aG kvm $USER")
	case strings.Contains(words.All(), "Failed to get") && strings.Contains(said, "using the image"):
		return api.Errorf(api.KindBusy, "cannot start QEMU: a disk is in use by another process: %s", said)
	case strings.Contains(said, "Cannot allocate memory"):
		return api.Errorf(api.KindUnavailable, "cannot start QEMU with %d MiB of memory: %s", spec.MemoryBytes>>20, said)
	}
	// An old QEMU stumbles over our arguments; say so rather than which.
	check, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := d.Check(check); err != nil {
		return err
	}
	if said == "" {
		return api.Errorf(api.KindUnavailable, "cannot start QEMU: it ended (%v) with no word: %w", child.Describe(p.Err()), cause)
	}
	return api.Errorf(api.KindUnavailable, "cannot start QEMU: %s", said)
}

// lastWords is the last line of QEMU's, without the program's name.
func lastWords(words *child.Output) string {
	last := words.Last()
	if _, text, found := strings.Cut(last, programName+": "); found {
		return text
	}
	return last
}

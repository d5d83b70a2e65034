package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/console"
)

const (
	// wakePatience is how long a copied guest may take to answer. That is a tenth of
	// a second; one that takes so much longer, on the busiest host, is broken.
	wakePatience = 30 * time.Second
	// maxState is more than the state of any machine without its memory, in bytes.
	maxState    = 64 << 20
	stateSocket = "state.sock"
	// templateNice is the priority of a QEMU that nobody waits for.
	templateNice = 10
)

var _ vmm.Templater = (*Driver)(nil)

// Templates says yes for emulation, where a boot takes seconds. Under KVM a guest's
// clock and processor would be those of the template, too.
func (d *Driver) Templates(a vmm.Accelerator) bool { return a == vmm.TCG }

// MakeTemplate boots a guest whose memory is the template's file, waits until it is
// parked, and writes down the rest of the machine.
func (d *Driver) MakeTemplate(ctx context.Context, spec vmm.Spec, into vmm.Template) (err error) {
	fail := func(err error) error {
		return api.Errorf(api.KindOf(err), "cannot make a template: %w", err)
	}
	if !d.Templates(spec.Accelerator) {
		return api.Errorf(api.KindUnsupported, "cannot make a template: not for accelerator %q", spec.Accelerator)
	}
	path, err := d.find()
	if err != nil {
		return fail(err)
	}
	if err := validate(spec); err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(into.Memory)
			_ = os.Remove(into.State)
		}
	}()
	f, err := os.OpenFile(into.Memory, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(spec.MemoryBytes>>10<<10), f.Close())
	}
	if err != nil {
		return fail(err)
	}
	parked := console.Listen(guestapi.ParkedMark)
	m, err := d.launch(ctx, path, tscKHz(d.tsc), spec, memory{path: into.Memory, shared: true}, parked)
	if err != nil {
		return fail(err)
	}
	defer func() {
		_ = m.Kill() // it may have ended
		<-m.Done()
	}()
	select {
	case <-parked.Found:
	case <-m.Done():
		return api.Errorf(api.KindGuest, "cannot make a template: the guest ended: %s %s: %s", m.Exit().Reason, m.Exit().Detail, parked.Last())
	case <-ctx.Done():
		return api.Errorf(api.KindTimeout, "cannot make a template: the guest does not park: %s", parked.Last())
	}
	if err := m.capture(ctx, filepath.Join(spec.RunDir, stateSocket), into.State); err != nil {
		return fail(err)
	}
	if err := flush(into.Memory); err != nil {
		return fail(err)
	}
	return nil
}

// flush sees that the disk takes the file: a page that it does not take is lost.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ignoreShared keeps the memory, which is the template's file, out of the state.
func ignoreShared() any {
	return map[string]any{"capabilities": []map[string]any{{"capability": "x-ignore-shared", "state": true}}}
}

// capture stops the machine and writes its state to the file.
func (m *Machine) capture(ctx context.Context, socket, path string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := m.qmp.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := m.qmp.Execute(ctx, "migrate-set-capabilities", ignoreShared(), nil); err != nil {
		return err
	}
	if err := m.qmp.Execute(ctx, "migrate", map[string]string{"uri": "unix:" + socket}, nil); err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	closing := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer closing()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(c, maxState+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if n > maxState {
		return fmt.Errorf("the state is larger than %d bytes", maxState)
	}
	return m.migrated(ctx, "completed")
}

// feed gives the reading end of a pipe with the file in it: QEMU 11 takes no file
// for the state of a machine. What writes it ends with the pipe.
func feed(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	go func() {
		_, _ = io.Copy(w, f) // QEMU says what it lacks
		_ = w.Close()
		_ = f.Close()
	}()
	return r, nil
}

// restore lets QEMU read the template's state.
func (m *Machine) restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wakePatience)
	defer cancel()
	for _, c := range []struct {
		command   string
		arguments any
	}{
		{"migrate-set-capabilities", ignoreShared()},
		// Nobody's address moved.
		{"migrate-set-parameters", map[string]any{"announce-rounds": 0}},
		{"migrate-incoming", map[string]any{"uri": fmt.Sprint("fd:", fdState)}},
	} {
		if err := m.qmp.Execute(ctx, c.command, c.arguments, nil); err != nil {
			return err
		}
	}
	return m.migrated(ctx, "completed")
}

// migrated waits until QEMU has sent or taken a state.
func (m *Machine) migrated(ctx context.Context, want string) error {
	for {
		var got struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := m.qmp.Execute(ctx, "query-migrate", nil, &got); err != nil {
			return err
		}
		switch got.Status {
		case want:
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU says %s: %s", got.Status, got.Error)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wake tells the copied guest what to be.
func (m *Machine) wake(ctx context.Context, w guestapi.Wake) error {
	fail := func(err error) error {
		return api.Errorf(api.KindUnavailable, "cannot wake the guest of a template: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, wakePatience)
	defer cancel()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", m.linkSocket)
	if err != nil {
		return fail(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = handOver(c, w)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		return fail(err)
	}
	m.woken <- c
	return nil
}

func handOver(c net.Conn, w guestapi.Wake) error {
	b, err := guestapi.EncodeWake(w, time.Now())
	if err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	var reply [1]byte
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		return err
	}
	if reply[0] != guestapi.WakeReply {
		return fmt.Errorf("its answer is byte %#x", reply[0])
	}
	return nil
}

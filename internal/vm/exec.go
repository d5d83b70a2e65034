package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// Exec runs one command in a running VM and relays its streams. The last thing
// it sends is the exit; an error means that none was sent.
func (m *Manager) Exec(ctx context.Context, ref string, ask api.Exec, client Stream) error {
	if err := checkExec(ask); err != nil {
		return err
	}
	rec, err := m.find(ctx, ref)
	if err != nil {
		return err
	}
	if ask.Start && m.status(rec) != api.StatusRunning {
		if err := m.startFor(ctx, rec.ID, client); err != nil {
			return err
		}
	}
	if _, err := gate(verbExec, rec.Name, m.status(rec)); err != nil {
		return err
	}
	mc := m.machine(rec.ID)
	guest, r := mc.guest()
	if guest == nil {
		_, err := gate(verbExec, rec.Name, api.StatusStopped)
		return err
	}
	if ask.Entrypoint {
		if ask.Argv, err = m.throughEntrypoint(ctx, rec, ask.Argv); err != nil {
			return err
		}
	}
	mc.touch(m.now())
	ctx, cancel := m.timed(ctx, ask, rec.Name)
	defer cancel()
	open, stop := r.until(ctx, time.Minute)
	s, err := guest.Exec(open, execRequest(ask), false)
	stop()
	if err != nil {
		e := *api.AsError(m.explain(ctx, mc, r, rec.Name, err))
		if e.Kind == api.KindTimeout && e.Hint == "" {
			e.Hint = "banger vm stop " + rec.Name
		}
		return &e
	}
	in := newInbox(ctx, client)
	defer in.close()
	l := relay{vm: rec.ID, guest: s, client: client, in: in}
	exit, err := l.run(ctx)
	if err != nil {
		return m.explain(ctx, mc, r, rec.Name, err)
	}
	mc.touch(m.now())
	return sendJSON(ctx, client, api.ChannelExit, exit)
}

// timed bounds a command that has a time-out. The agent keeps the time, unless it
// is silent.
func (m *Manager) timed(ctx context.Context, ask api.Exec, vm string) (context.Context, context.CancelFunc) {
	if ask.TimeoutMS <= 0 {
		return ctx, func() {}
	}
	late := api.Errorf(api.KindTimeout, "its time is over, and the guest's agent does not answer").WithHint("banger vm stop %s", vm)
	return context.WithTimeoutCause(ctx, time.Duration(ask.TimeoutMS)*time.Millisecond+m.times.Overtime, late)
}

// explain gives an error of a broken link the reason, when the VM's end was it.
func (m *Manager) explain(ctx context.Context, mc *machine, r *running, name string, err error) error {
	if errors.Is(err, errClientGone) || ctx.Err() != nil {
		return err
	}
	select {
	case <-r.gone:
		e := api.Errorf(api.KindGuest, "cannot follow the command in vm %q: %s", name, fateText(r.exit, mc.blamed(r)))
		rec, look := m.d.Store.VM(ctx, mc.id)
		if look == nil && !rec.AutoRemove && mc.blamed(r) != causeRemove { // else there is nothing to show
			e = e.WithHint("banger vm show %s", rec.Name)
		}
		return e
	case <-time.After(endPatience(err)):
		return err
	}
}

// endPatience is how long the news of a VM's end may trail its broken link.
func endPatience(err error) time.Duration {
	if api.KindOf(err) == api.KindUnavailable {
		return 2 * time.Second
	}
	return 0
}

// startFor boots the VM for an exec and shows the client how far it is.
func (m *Manager) startFor(ctx context.Context, id string, client Stream) error {
	op, err := m.Start(ctx, id)
	if err != nil {
		return err
	}
	op, err = m.follow(ctx, op.ID, client)
	if err != nil {
		return err
	}
	if op.Error != nil {
		return op.Error
	}
	return nil
}

// follow shows the client an operation until its end.
func (m *Manager) follow(ctx context.Context, id string, client Stream) (api.Operation, error) {
	for op := range m.d.Operations.Watch(ctx, id) {
		if op.FinishedAt != nil {
			return op, nil
		}
		if err := sendJSON(ctx, client, api.ChannelProgress, op); err != nil {
			return op, err
		}
	}
	if ctx.Err() != nil {
		return api.Operation{}, api.Errorf(api.KindCancelled, "cannot wait for operation %s: %w", id, context.Cause(ctx))
	}
	return m.d.Operations.Get(ctx, id)
}

func checkExec(e api.Exec) error {
	if err := checkEnv(e.Env); err != nil {
		return err
	}
	for what, s := range map[string]string{"workdir": e.Workdir, "user": e.User} {
		if err := checkText(what, s); err != nil {
			return err
		}
	}
	if e.TimeoutMS < 0 || e.Rows < 0 || e.Cols < 0 || e.Rows > 1<<15 || e.Cols > 1<<15 {
		return api.Errorf(api.KindInvalid, "cannot run the command: a time-out or terminal size is out of range")
	}
	if e.TTY && e.Detach {
		return api.Errorf(api.KindInvalid, "cannot run the command: a detached one has no terminal")
	}
	if len(e.Argv) > 0 && e.Argv[0] == "" {
		return api.Errorf(api.KindInvalid, "cannot run the command: its name is empty")
	}
	total := 0
	for _, a := range e.Argv {
		for i := range len(a) {
			if a[i] == 0 {
				return api.Errorf(api.KindInvalid, "cannot run the command: an argument holds a zero byte")
			}
		}
		total += len(a) + 1
	}
	if total > guestapi.MaxFrame {
		return api.Errorf(api.KindInvalid, "cannot run the command: its arguments are %d bytes long, %d are possible", total, guestapi.MaxFrame)
	}
	return nil
}

func execRequest(e api.Exec) guestapi.ExecRequest {
	return guestapi.ExecRequest{
		Argv: e.Argv, Env: e.Env, Workdir: e.Workdir, User: e.User, TTY: e.TTY, Rows: e.Rows, Cols: e.Cols,
		NoStdin: e.NoStdin, Detach: e.Detach, TimeoutMS: e.TimeoutMS,
	}
}

func sendJSON(ctx context.Context, client Stream, ch api.Channel, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot encode a reply: %w", err)
	}
	if err := client.Send(ctx, ch, b); err != nil {
		return fmt.Errorf("%w: %w", errClientGone, err)
	}
	return nil
}

// errClientGone says that the client's connection broke or that it broke the
// rules of the stream.
var errClientGone = api.Errorf(api.KindCancelled, "the client is gone")

// relay copies the frames of one command between guest and client, one to one,
// credits included: what the client may send is what the guest has room for,
// and a client that reads slowly slows the guest.
type relay struct {
	vm     string
	guest  ExecStream
	client Stream
	in     *inbox
	// hangup is how long the command gets after HUP when the client is gone;
	// zero leaves all that to the agent, which sees the stream close.
	hangup time.Duration
}

// run relays until the command's exit, which it returns but does not send. The
// guest's stream is closed at the end.
func (l *relay) run(parent context.Context) (api.Exit, error) {
	ctx, cancel := context.WithCancel(parent)
	var wg sync.WaitGroup
	gone := make(chan struct{}) // the client is
	wg.Add(1)
	go func() {
		defer wg.Done()
		// The parent is asked too: its end reaches ctx a moment after it reaches
		// the client's reader.
		if l.upstream(ctx) && ctx.Err() == nil && parent.Err() == nil {
			close(gone)
			l.hang(ctx)
		}
	}()
	wg.Go(func() { l.unblock(ctx) })
	release := context.AfterFunc(parent, func() { _ = l.guest.Close() }) // the daemon leaves
	exit, err := l.downstream(ctx, gone)
	release()
	cancel()
	_ = l.guest.Close() // also ends a Send that waits
	wg.Wait()
	if err != nil {
		select {
		case <-gone:
			return exit, errClientGone
		default:
		}
		if parent.Err() != nil {
			return exit, leftErr(context.Cause(parent))
		}
		select {
		case <-l.in.gone():
			return exit, errClientGone
		default:
		}
	}
	return exit, err
}

// leftErr is why a command is followed no longer: the daemon leaves, or the
// request was cancelled. The command began, so doing it again is not safe.
func leftErr(cause error) error {
	kind := api.KindOf(cause)
	if kind == api.KindInternal {
		kind = api.KindCancelled
	}
	e := api.Errorf(kind, "cannot follow the command: %w", cause)
	e.Hint = api.AsError(cause).Hint
	return e
}

// stuckPatience is how much longer than the hang-up a guest may take to accept
// what a client that is gone left behind.
const stuckPatience = 5 * time.Second

// unblock closes the stream of a guest that takes nothing, so that upstream
// comes to know that the client is gone.
func (l *relay) unblock(ctx context.Context) {
	select {
	case <-l.in.gone():
	case <-ctx.Done():
		return
	}
	select {
	case <-time.After(l.hangup + stuckPatience):
		_ = l.guest.Close()
	case <-ctx.Done():
	}
}

// upstream copies from client to guest; true means that the client is gone.
func (l *relay) upstream(ctx context.Context) bool {
	for {
		ch, payload, err := l.in.pop(ctx)
		if err != nil {
			return ctx.Err() == nil
		}
		switch ch {
		case api.ChannelStdin, api.ChannelSignal, api.ChannelResize:
		default:
			return true // against the rules
		}
		for first := true; first || len(payload) > 0; first = false {
			n := min(len(payload), guestapi.MaxFrame)
			if err := l.guest.Send(byte(ch), payload[:n]); err != nil {
				return false // downstream hears of it, too
			}
			payload = payload[n:]
		}
	}
}

// hang ends the command of a client that is gone. Without a hangup time it
// closes the stream and the agent does the rest.
func (l *relay) hang(ctx context.Context) {
	if l.hangup == 0 {
		_ = l.guest.Close()
		return
	}
	for _, s := range []struct {
		signal string
		wait   time.Duration
	}{{"HUP", l.hangup}, {"KILL", 2 * time.Second}} {
		if l.guest.Send(guestapi.ChannelSignal, []byte(s.signal)) != nil {
			break
		}
		select {
		case <-ctx.Done(): // downstream saw the exit
			return
		case <-time.After(s.wait):
		}
	}
	_ = l.guest.Close()
}

// downstream copies from guest to client until the exit. When the client is
// gone, the rest is read and dropped.
func (l *relay) downstream(ctx context.Context, gone <-chan struct{}) (api.Exit, error) {
	for {
		ch, payload, err := l.guest.Recv()
		if err != nil {
			return api.Exit{}, err
		}
		switch ch {
		case guestapi.ChannelExit:
			return exitOf(payload)
		case guestapi.ChannelStarted:
			var s guestapi.Started
			if err := json.Unmarshal(payload, &s); err != nil {
				return api.Exit{}, api.Errorf(api.KindGuest, "cannot follow the command: the agent's account of its start: %w", err)
			}
			if payload, err = json.Marshal(api.Started{VM: l.vm, PID: s.PID}); err != nil {
				return api.Exit{}, api.Errorf(api.KindInternal, "cannot encode a reply: %w", err)
			}
		case guestapi.ChannelStdout, guestapi.ChannelStderr, guestapi.ChannelCredit:
		default:
			return api.Exit{}, api.Errorf(api.KindGuest, "cannot follow the command: the agent sent a frame on channel %d", ch)
		}
		select {
		case <-gone:
			continue
		default:
		}
		if err := l.client.Send(ctx, api.Channel(ch), payload); err != nil {
			l.in.fail(errClientGone) // upstream ends the command
		}
	}
}

// exitOf reads the agent's last frame.
func exitOf(payload []byte) (api.Exit, error) {
	var e guestapi.Exit
	if err := json.Unmarshal(payload, &e); err != nil {
		return api.Exit{}, api.Errorf(api.KindGuest, "cannot follow the command: the agent's account of its end: %w", err)
	}
	if e.Invalid {
		return api.Exit{}, api.Errorf(api.KindInvalid, "cannot run the command: %s", oneLine(e.Message))
	}
	x := api.Exit{Code: e.Code, Signal: oneLine(e.Signal), TimedOut: e.TimedOut, Message: oneLine(e.Message)}
	if x.Code < 0 || x.Code > 255 {
		return api.Exit{}, api.Errorf(api.KindGuest, "cannot follow the command: the agent says it ended with code %d", e.Code)
	}
	return x, nil
}

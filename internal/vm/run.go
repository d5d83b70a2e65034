package vm

import (
	"context"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// Run creates a VM, runs one command in it and ends the VM as asked. The
// connection is the lease: when it breaks before the command began, nothing is
// left. What becomes of the VM afterwards stands in its record before the
// command starts, so that it holds whatever dies: the client, or this daemon.
func (m *Manager) Run(ctx context.Context, ask api.Run, client Stream) error {
	switch ask.End {
	case api.EndKeep, api.EndStop, api.EndRemove:
	case "":
		ask.End = api.EndKeep
	default:
		return api.Errorf(api.KindInvalid, "cannot run: %q is not an end of a vm", ask.End)
	}
	if err := checkExec(ask.Exec); err != nil {
		return err
	}
	if ask.VM.NoStart {
		return api.Errorf(api.KindInvalid, "cannot run a command in a vm that is not to start")
	}
	end := ask.End
	if end == api.EndKeep || ask.Exec.Detach && end == api.EndStop {
		end = "" // nobody sees the end of a detached command
	}
	if end == api.EndRemove {
		ask.VM.AutoRemove = true
	}
	in := newInbox(ctx, client)
	defer in.close()
	l := &lease{m: m, ask: ask, client: client, in: in, opened: make(chan struct{})}
	op, id, err := m.create(ctx, ask.VM, end, &hook{first: l.open})
	if err != nil {
		return err
	}
	defer m.unhook(id)
	l.id, l.op = id, op.ID
	mc := m.machine(id)
	mc.update(func() { mc.leased = true })
	defer mc.update(func() { mc.leased = false })
	if err := l.begin(ctx); err != nil {
		return err
	}
	return l.finish(ctx, mc)
}

// lease is one run under way.
type lease struct {
	m      *Manager
	ask    api.Run
	client Stream
	in     *inbox
	id, op string

	opened chan struct{} // closed once stream is set
	stream ExecStream
}

// open is the hook of the boot: the command itself is the first thing the
// guest is asked, which saves a round trip.
func (l *lease) open(ctx context.Context, g Guest) error {
	ask := l.ask.Exec
	if len(l.ask.VM.Entrypoint) > 0 || l.ask.VM.ImageEntrypoint {
		rec, err := l.m.d.Store.VM(ctx, l.id)
		if err != nil {
			return err
		}
		if ask.Argv, err = l.m.throughEntrypoint(ctx, rec, ask.Argv); err != nil {
			return err
		}
	}
	s, err := g.Exec(ctx, execRequest(ask), true)
	if err != nil {
		return err
	}
	l.stream = s
	close(l.opened)
	return nil
}

// begin follows the create until the command's stream is open. A client that
// goes away meanwhile, and any failure, undoes it all.
func (l *lease) begin(ctx context.Context) error {
	changes := l.m.d.Operations.Watch(ctx, l.op)
	for {
		select {
		case <-l.opened:
			return nil
		case <-l.in.gone():
			return l.abandon(ctx, errClientGone)
		case op, ok := <-changes:
			switch {
			case !ok:
				return l.abandon(ctx, errClientGone)
			case op.FinishedAt == nil:
				if err := sendJSON(ctx, l.client, api.ChannelProgress, op); err != nil {
					return l.abandon(ctx, err)
				}
			case op.Error != nil:
				e := *op.Error
				e.OperationID = op.ID
				return l.abandon(ctx, &e)
			default:
				// Succeeded: an earlier request with the same id made the VM,
				// or the stream was opened in this instant.
				select {
				case <-l.opened:
					return nil
				default:
					return l.rejoin(ctx)
				}
			}
		}
	}
}

// rejoin opens the command in a VM that an earlier request made.
func (l *lease) rejoin(ctx context.Context) error {
	rec, err := l.m.d.Store.VM(ctx, l.id)
	if err != nil {
		return err
	}
	guest, _ := l.m.machine(l.id).guest()
	if guest == nil {
		_, err := gate(verbExec, rec.Name, api.StatusStopped)
		return err
	}
	return l.open(ctx, guest)
}

// abandon cancels the create, sees that nothing is left of it unless the
// create itself kept the VM of a failed boot, and gives why back.
func (l *lease) abandon(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*l.m.times.Undo)
	defer cancel()
	if err := l.m.cancel(l.op); err != nil {
		return both(why, err)
	}
	op, err := l.m.d.Operations.Wait(ctx, l.op)
	if err != nil {
		return both(why, err)
	}
	select {
	case <-l.opened:
		_ = l.stream.Close() // the VM goes, and the command with it
	default:
	}
	if op.Status == api.OperationSucceeded { // before the cancel reached it
		if err := l.m.remove(ctx, l.id, "abandoned"); err != nil {
			return both(why, err)
		}
	}
	return why
}

// finish relays the command to its end, then ends the VM as asked.
func (l *lease) finish(ctx context.Context, mc *machine) error {
	m := l.m
	r := mc.current()
	name := l.id
	rl := relay{vm: l.id, guest: l.stream, client: l.client, in: l.in, hangup: m.times.Hangup}
	timed, stop := m.timed(ctx, l.ask.Exec, l.id)
	exit, err := rl.run(timed)
	stop()
	if err != nil && r != nil {
		if rec, look := m.d.Store.VM(context.WithoutCancel(ctx), l.id); look == nil {
			name = rec.Name
		}
		err = m.explain(ctx, mc, r, name, err)
	}
	// The create's own last words, if they are still to come. It cannot fail
	// any more except by its journal.
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.times.Undo)
	op, werr := m.d.Operations.Wait(wctx, l.op)
	cancel()
	if werr == nil && op.Error != nil {
		return both(err, op.Error) // undone
	}
	exit.Name, exit.VM = name, "running"
	if !l.ask.Exec.Detach {
		var end error
		exit, end = m.settle(context.WithoutCancel(ctx), mc, l.ask.End, exit, err)
		err = both(err, end)
	} else if rec, look := m.d.Store.VM(ctx, l.id); look == nil {
		exit.Name = rec.Name
	}
	if err != nil {
		return err
	}
	return sendJSON(ctx, l.client, api.ChannelExit, exit)
}

// settle ends the VM of a run as its record says, and tells what became of it.
// failed is why the command's own end is not known.
func (m *Manager) settle(ctx context.Context, mc *machine, end string, exit api.Exit, failed error) (api.Exit, error) {
	if end == api.EndRemove {
		// The record says so since the beginning: no word to it, just go. The
		// name is read before it is gone.
		if rec, err := m.d.Store.VM(ctx, mc.id); err == nil {
			exit.Name = rec.Name
		}
		exit.VM = "removed"
		return exit, m.remove(ctx, mc.id, "run ended")
	}
	rec, err := m.d.Store.UpdateVM(ctx, mc.id, func(v *store.VM) error {
		if failed == nil {
			v.ExitCode = &exit.Code
		}
		if end != api.EndStop {
			v.End = ""
		}
		return nil
	})
	if api.KindOf(err) == api.KindNotFound { // deleted under the command
		exit.VM = "removed"
		return exit, nil
	}
	if err != nil {
		return exit, err
	}
	mc.update(func() {})
	exit.Name = rec.Name
	if end == api.EndStop {
		err = m.stopAfterRun(ctx, mc)
	}
	if api.KindOf(err) == api.KindNotFound {
		exit.VM = "removed"
		return exit, nil
	}
	exit.VM = string(m.status(rec))
	return exit, err
}

// stopAfterRun stops the VM in order, outside an operation: its record asks
// for it until it is done.
func (m *Manager) stopAfterRun(ctx context.Context, mc *machine) error {
	rec, err := m.d.Store.VM(ctx, mc.id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.stopLimit(rec, rec.UsedAccelerator)+3*m.times.Gone)
	defer cancel()
	if err := mc.acquire(ctx); err != nil {
		return err
	}
	defer mc.release()
	if rec, err = m.d.Store.VM(ctx, mc.id); err != nil {
		return err
	}
	if r := mc.current(); r != nil {
		leave := mc.enter(api.StatusStopping, "")
		err = m.shutdown(ctx, mc, r, rec, 0, func(string) {})
		leave()
	}
	if err != nil {
		return err
	}
	_, err = m.d.Store.UpdateVM(ctx, mc.id, func(v *store.VM) error { v.End = ""; return nil })
	mc.update(func() {})
	return err
}

// runPatience bounds how long Recover gives the end of a run that outlived its
// daemon.
const runPatience = 2 * time.Minute

package cli

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

// maxAtOnce is how many operations one command has under way.
const maxAtOnce = 8

// watchTries is how often following an operation begins anew when the daemon
// goes away: the next daemon finishes or undoes what it finds.
const watchTries = 3

// waiting is how a command waits for what it began.
type waiting struct {
	timeout time.Duration
	noWait  bool
}

func (w *waiting) flags(cmd *cobra.Command, timeout bool) {
	if timeout {
		cmd.Flags().Var(&durationFlag{d: &w.timeout}, "timeout", "give up waiting after this long (exit code 124); the work goes on")
	}
	cmd.Flags().BoolVar(&w.noWait, "no-wait", false, "do not wait: print the operation's id")
}

// hearPatience is how long the daemon may take to hear of a cancellation.
const hearPatience = time.Second

// outcome is how the work on one reference ended.
type outcome struct {
	ref string
	op  api.Operation
	err error
}

// follower runs operations to their end under one display. The first signal
// cancels them; a second, or undoPatience later, ends the command.
type follower struct {
	c        *client.Client
	progress *ui.Progress
	wait     waiting

	mu        sync.Mutex
	running   map[string]bool
	cancelled bool
	ctx       context.Context // of the cancelling
}

// runOperations begins one operation for each reference and follows all to
// their ends. Results come in the order of refs.
func (a *app) runOperations(ctx context.Context, refs []string, w waiting, begin func(ctx context.Context, c *client.Client, ref string) (api.Operation, error)) ([]outcome, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	var cancelling sync.WaitGroup
	defer cancelling.Wait()
	defer giveUp(nil)
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	f := &follower{c: c, progress: a.ui.NewProgress(len(refs) > 1), wait: w, running: map[string]bool{}, ctx: ctx}
	defer f.progress.Close()
	sigs, release := a.takeSignals()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		f.onSignals(sigs, stop, giveUp, &cancelling)
	}()
	defer func() {
		close(stop)
		<-stopped
		release()
	}()

	out := make([]outcome, len(refs))
	slots := make(chan struct{}, maxAtOnce)
	var all sync.WaitGroup
	for i, ref := range refs {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			op, err := f.follow(ctx, ref, begin)
			out[i] = outcome{ref, op, err}
		})
	}
	all.Wait()
	return out, nil
}

func (f *follower) onSignals(sigs <-chan os.Signal, stop <-chan struct{}, giveUp context.CancelCauseFunc, cancelling *sync.WaitGroup) {
	var patience <-chan time.Time
	leave := api.Errorf(api.KindCancelled, "cancelled; the undoing goes on in the daemon").WithHint("banger operation list")
	for {
		select {
		case <-stop:
			return
		case <-patience:
			giveUp(leave)
			continue
		case <-sigs:
		}
		f.mu.Lock()
		again := f.cancelled
		f.cancelled = true
		var ids []string
		for id := range f.running {
			ids = append(ids, id)
		}
		f.mu.Unlock()
		if again {
			giveUp(leave)
			continue
		}
		// A terminal that was closed sends no second signal.
		patience = time.After(undoPatience)
		for _, id := range ids {
			// What cannot be cancelled any more ends by itself. A daemon that does
			// not answer must not keep us from the second signal.
			cancelling.Go(func() {
				// Nor must a second signal on the heels of the first call it off.
				ctx, stop := context.WithTimeout(context.WithoutCancel(f.ctx), hearPatience)
				defer stop()
				_, _ = f.c.CancelOperation(ctx, id)
			})
		}
	}
}

// follow begins one operation and follows it to its end, whose failure is err.
func (f *follower) follow(ctx context.Context, ref string, begin func(context.Context, *client.Client, string) (api.Operation, error)) (api.Operation, error) {
	if f.isCancelled() {
		return api.Operation{}, api.Errorf(api.KindCancelled, "cancelled before it began")
	}
	op, err := begin(ctx, f.c, ref)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = api.Errorf(api.KindTimeout, "gave up waiting after %s; what the daemon was asked may go on", f.wait.timeout).WithHint("banger operation list")
		}
		return op, err
	}
	if f.wait.noWait || client.Finished(op) {
		if client.Finished(op) {
			return op, client.OperationError(op)
		}
		return op, nil
	}
	f.mu.Lock()
	f.running[op.ID] = true
	late := f.cancelled
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.running, op.ID)
		f.mu.Unlock()
	}()
	if late {
		_, _ = f.c.CancelOperation(ctx, op.ID)
	}
	f.progress.Update(ref, op)
	last, err := watch(ctx, f.c, op.ID, func(op api.Operation) { f.progress.Update(ref, op) })
	if err != nil {
		return op, f.gaveUp(ctx, op, err)
	}
	return last, client.OperationError(last)
}

func (f *follower) isCancelled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cancelled
}

// gaveUp says what becomes of an operation we no longer wait for.
func (f *follower) gaveUp(ctx context.Context, op api.Operation, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = api.Errorf(api.KindTimeout, "gave up waiting after %s; operation %s (%s) goes on", f.wait.timeout, op.ID, op.Kind).
			WithHint("banger operation wait %s", op.ID)
	}
	e := *api.AsError(err)
	e.OperationID = op.ID
	return &e
}

// watch follows an operation to its end, through a change of daemons.
func watch(ctx context.Context, c *client.Client, id string, fn func(api.Operation)) (api.Operation, error) {
	for try := 1; ; try++ {
		op, err := c.WatchOperation(ctx, id, fn)
		if err == nil || try == watchTries || api.KindOf(err) != api.KindUnavailable || ctx.Err() != nil {
			return op, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return op, err
		}
	}
}

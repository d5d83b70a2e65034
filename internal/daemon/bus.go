package daemon

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bangervm/banger/api"
)

const (
	eventPage  = 500    // events read at a time
	eventsKept = 10_000 // in the store
	eventQueue = 4096   // published, not yet stored
)

// eventStore is what the bus asks of the store.
type eventStore interface {
	AppendEvent(ctx context.Context, e api.Event) (int64, error)
	Events(ctx context.Context, since int64, limit int) ([]api.Event, error)
	TrimEvents(ctx context.Context, keep int) error
}

// bus stores events and wakes those who follow them. Publishing never waits for
// the disk: a writer of its own does, in order.
type bus struct {
	store eventStore
	log   *slog.Logger
	now   func() time.Time

	queue chan api.Event
	done  chan struct{} // closed when the writer has ended
	last  atomic.Int64

	mu          sync.Mutex
	closed      bool
	lost        int // not queued since the last one that was
	subscribers map[chan struct{}]bool
	operations  map[string]stageSeen
}

// stageSeen is what was last told of an operation.
type stageSeen struct {
	status api.OperationStatus
	stage  string
}

// newBus stores first as the first event, which gives the id to count from.
func newBus(ctx context.Context, store eventStore, log *slog.Logger, now func() time.Time, first api.Event) (*bus, error) {
	b := &bus{
		store: store, log: log, now: now,
		queue: make(chan api.Event, eventQueue), done: make(chan struct{}),
		subscribers: map[chan struct{}]bool{}, operations: map[string]stageSeen{},
	}
	first.Time = now().UTC()
	id, err := store.AppendEvent(ctx, first)
	if api.KindOf(err) == api.KindNoSpace {
		// Who makes room needs a daemon for it.
		log.Warn("the first event is lost", "error", err)
		id, err = lastEvent(ctx, store)
	}
	if err != nil {
		return nil, err
	}
	b.last.Store(id)
	if err := store.TrimEvents(ctx, eventsKept); err != nil && api.KindOf(err) != api.KindNoSpace {
		return nil, err
	}
	go b.write(context.WithoutCancel(ctx))
	return b, nil
}

// lastEvent is the id of the newest event in the store.
func lastEvent(ctx context.Context, store eventStore) (int64, error) {
	all, err := store.Events(ctx, 0, 0)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[len(all)-1].ID, nil
}

// Publish tells that something happened. When the disk cannot keep up, events
// are dropped rather than hold up the work, and the log says how many.
func (b *bus) Publish(kind, target string, data map[string]string) {
	e := api.Event{Time: b.now().UTC(), Kind: kind, Target: target, Data: maps.Clone(data)}
	if e.Data == nil {
		e.Data = map[string]string{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	select {
	case b.queue <- e:
		if b.lost > 0 {
			b.log.Warn("events were dropped: the store did not keep up", "count", b.lost)
			b.lost = 0
		}
	default:
		b.lost++
	}
}

// Operation tells of an operation's beginning, stages and end. Progress within
// a stage is for those who watch the operation.
func (b *bus) Operation(op api.Operation) {
	b.mu.Lock()
	before, known := b.operations[op.ID]
	seen := stageSeen{op.Status, op.Stage}
	if op.Status == api.OperationRunning {
		b.operations[op.ID] = seen
	} else {
		delete(b.operations, op.ID)
	}
	b.mu.Unlock()
	if known && before == seen {
		return
	}
	kind := "operation." + string(op.Status)
	if known && op.Status == api.OperationRunning {
		kind = "operation.stage"
	}
	data := map[string]string{"kind": op.Kind, "target": op.Target}
	if op.Stage != "" {
		data["stage"] = op.Stage
	}
	if op.Error != nil {
		data["error"] = op.Error.Message
	}
	b.Publish(kind, op.ID, data)
}

func (b *bus) write(ctx context.Context) {
	defer close(b.done)
	stored := 0
	for e := range b.queue {
		id, err := b.store.AppendEvent(ctx, e)
		if err != nil {
			b.log.Error("cannot store event", "kind", e.Kind, "target", e.Target, "error", err)
			continue
		}
		b.last.Store(id)
		b.wake()
		if stored++; stored%1000 == 0 {
			if err := b.store.TrimEvents(ctx, eventsKept); err != nil {
				b.log.Error("cannot trim events", "error", err)
			}
		}
	}
}

func (b *bus) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.subscribers {
		token(c)
	}
}

// After gives a page of the stored events behind since.
func (b *bus) After(ctx context.Context, since int64) ([]api.Event, error) {
	return b.store.Events(ctx, since, eventPage)
}

// Last is the id of the newest stored event.
func (b *bus) Last() int64 { return b.last.Load() }

// Subscribe gives a channel that holds a token when there is news.
func (b *bus) Subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	b.mu.Lock()
	b.subscribers[c] = true
	b.mu.Unlock()
	return c, func() {
		b.mu.Lock()
		delete(b.subscribers, c)
		b.mu.Unlock()
	}
}

// Close stores what was published and ends the writer.
func (b *bus) Close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.queue)
	}
	b.mu.Unlock()
	<-b.done
}

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

func testBus(t *testing.T, store eventStore) *bus {
	t.Helper()
	b, err := newBus(t.Context(), store, slog.New(slog.NewTextHandler(t.Output(), nil)), time.Now, api.Event{Kind: "daemon.started"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBusKeepsOrderAndFlushes(t *testing.T) {
	t.Parallel()
	store := &memoryEvents{}
	b := testBus(t, store)
	for i := range 1000 {
		b.Publish("n", fmt.Sprint(i), nil)
	}
	b.Close()
	b.Publish("late", "", nil) // after Close: dropped, no panic
	b.Close()
	if len(store.list) != 1001 || b.Last() != 1001 {
		t.Fatalf("%d events are stored, the last is %d", len(store.list), b.Last())
	}
	for i, e := range store.list[1:] {
		if e.Target != fmt.Sprint(i) || e.Data == nil {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
}

func TestBusTellsStagesNotProgress(t *testing.T) {
	t.Parallel()
	store := &memoryEvents{}
	b := testBus(t, store)
	op := api.Operation{ID: "1", Kind: "vm.create", Target: "web", Status: api.OperationRunning}
	b.Operation(op)
	op.Stage = "boot"
	b.Operation(op)
	op.Progress.Done = 5
	b.Operation(op)
	op.Status, op.Error = api.OperationFailed, api.Errorf(api.KindGuest, "cannot boot")
	b.Operation(op)
	b.Close()
	var kinds []string
	for _, e := range store.list {
		kinds = append(kinds, e.Kind+" "+e.Data["stage"]+" "+e.Data["error"])
	}
	want := []string{"daemon.started  ", "operation.running  ", "operation.stage boot ", "operation.failed boot cannot boot"}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
	if len(b.operations) != 0 {
		t.Errorf("the bus still remembers %v", b.operations)
	}
}

// stuckEvents takes nothing until it is let go.
type stuckEvents struct {
	memoryEvents
	free chan struct{}
}

func (s *stuckEvents) AppendEvent(ctx context.Context, e api.Event) (int64, error) {
	if e.Kind == "n" {
		<-s.free
	}
	return s.memoryEvents.AppendEvent(ctx, e)
}

func TestBusNeverBlocks(t *testing.T) {
	t.Parallel()
	store := &stuckEvents{free: make(chan struct{})}
	b := testBus(t, store)
	for range eventQueue + 100 {
		b.Publish("n", "", nil)
	}
	if b.lost < 99 {
		t.Errorf("%d events are lost", b.lost)
	}
	close(store.free)
	b.Close()
}

// fullEvents is an event store on a full disk.
type fullEvents struct{ memoryEvents }

func (*fullEvents) AppendEvent(context.Context, api.Event) (int64, error) {
	return 0, api.Errorf(api.KindNoSpace, "the disk is full")
}

func (f *fullEvents) Events(context.Context, int64, int) ([]api.Event, error) {
	return f.list, nil
}

// Who makes room needs a daemon for it: it starts though it cannot say so.
func TestBusOnAFullDisk(t *testing.T) {
	t.Parallel()
	b := testBus(t, &fullEvents{memoryEvents{list: []api.Event{{ID: 6}, {ID: 7}}}})
	if b.Last() != 7 {
		t.Errorf("counts from %d", b.Last())
	}
	b.Publish("n", "", nil)
	b.Close()
}

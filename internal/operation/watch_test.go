package operation

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
	"github.com/google/go-cmp/cmp"
)

// gated begins an operation that does what it is sent, until the channel closes.
func gated(t *testing.T, r *Registry) (*Op, chan<- func(*Op)) {
	t.Helper()
	todo := make(chan func(*Op))
	r.Register(Kind{Name: "gated", Steps: func(*Op) ([]Step, error) {
		return []Step{{Name: "A", Do: func(ctx context.Context, op *Op) error {
			for {
				select {
				case f, ok := <-todo:
					if !ok {
						return nil
					}
					f(op)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}}}, nil
	}})
	op, err := r.Begin(t.Context(), "gated", "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	return op, todo
}

func TestWatch(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, newMemory(), nil)
	op, todo := gated(t, r)
	todo <- func(op *Op) { op.Stage("first") }
	seen := r.Watch(t.Context(), op.ID())
	slow := r.Watch(t.Context(), op.ID())
	gone, cancel := context.WithCancel(t.Context())
	left := r.Watch(gone, op.ID())
	cancel()
	for range left { // ends
	}
	if o := <-seen; o.Stage != "first" || o.Status != api.OperationRunning {
		t.Errorf("%+v", o)
	}
	todo <- func(op *Op) { op.Stage("second") }
	if o := <-seen; o.Stage != "second" {
		t.Errorf("%+v", o)
	}
	for i := range 100 {
		todo <- func(op *Op) { op.Stage(fmt.Sprint("stage ", i)) }
		if o := <-seen; o.Stage != fmt.Sprint("stage ", i) {
			t.Errorf("%d: %+v", i, o)
		}
	}
	close(todo)
	end := wait(t, r, op.ID())
	for name, c := range map[string]<-chan api.Operation{"watcher": seen, "slow reader": slow, "late watcher": r.Watch(t.Context(), op.ID())} {
		var last api.Operation
		n := 0
		for o := range c {
			last = o
			n++
		}
		if diff := cmp.Diff(end, last, cmp.AllowUnexported(api.Error{})); diff != "" || n > watchBuffer {
			t.Errorf("%s: %d, %s", name, n, diff)
		}
	}
	if _, ok := <-r.Watch(t.Context(), "nobody"); ok {
		t.Error("an operation that is not there was told of")
	}
}

func TestNotifyTellsEverythingInOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []string
	j := newMemory()
	r := newRegistry(t, j, func(o api.Operation) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%s %s %q", o.Status, statuses(o), o.Stage))
	})
	r.Register(Kind{Name: "k", Steps: func(*Op) ([]Step, error) {
		return []Step{
			{Name: "A", Do: func(_ context.Context, op *Op) error { op.Stage("a"); op.Stage("a"); return nil }},
			{Name: "B", Do: func(_ context.Context, op *Op) error { op.Stage("b"); return errDo }},
		}, nil
	}})
	op, err := r.Begin(t.Context(), "k", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, r, op.ID())
	if _, err := r.Finished(t.Context(), "k", "", nil); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`running running pending ""`,
		`running running pending "a"`,
		`running done running "a"`,
		`running done running "b"`,
		`running done failed "b"`,
		`failed undone undone "b"`,
		`succeeded  ""`,
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
}

func TestProgressIsThrottled(t *testing.T) {
	t.Parallel()
	c := &clock{t: day}
	j := newMemory()
	var mu sync.Mutex
	var told []int64
	r := New(j, func(o api.Operation) {
		mu.Lock()
		defer mu.Unlock()
		if o.Progress.Unit != "" {
			told = append(told, o.Progress.Done)
		}
	}, c.now, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	op, todo := gated(t, r)
	before := len(j.saves())
	done := make(chan struct{})
	todo <- func(op *Op) {
		for i := int64(1); i <= 1000; i++ {
			op.Progress(i, 1000, "bytes")
			c.add(time.Millisecond)
		}
		close(done)
	}
	<-done
	if got := op.Snapshot().Progress; got != (api.Progress{Done: 1000, Total: 1000, Unit: "bytes"}) {
		t.Errorf("%+v", got)
	}
	mu.Lock()
	n, last := len(told), told[len(told)-1]
	mu.Unlock()
	if n < 9 || n > 12 || last != 1000 {
		t.Errorf("told %d times, last %d", n, last)
	}
	if after := len(j.saves()); after != before {
		t.Errorf("progress was journalled %d times", after-before)
	}
	todo <- func(op *Op) { op.Stage("next") }
	todo <- func(*Op) {}
	if got := op.Snapshot().Progress; got != (api.Progress{}) {
		t.Errorf("a new stage begins with %+v", got)
	}
	close(todo)
	wait(t, r, op.ID())
}

func TestListAndRunning(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, newMemory(), nil)
	op, todo := gated(t, r)
	if _, err := r.Finished(t.Context(), "vm.start", "x", map[string]bool{"changed": false}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		f    Filter
		want int
	}{
		{Filter{}, 2}, {Filter{Kind: "gated"}, 1}, {Filter{Target: "x"}, 2}, {Filter{Target: "y"}, 0},
		{Filter{Status: api.OperationRunning}, 1}, {Filter{Status: api.OperationSucceeded, Kind: "vm.start"}, 1},
	} {
		list, err := r.List(t.Context(), tc.f)
		if err != nil || len(list) != tc.want {
			t.Errorf("%+v: %v %v", tc.f, list, err)
		}
	}
	if list := r.Running(Filter{Target: "x"}); len(list) != 1 || list[0].ID != op.ID() {
		t.Error(list)
	}
	close(todo)
	wait(t, r, op.ID())
}

func TestOnlyOldAndSurplusOperationsAreTrimmed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newMemory()
	add := func(id string, ended time.Duration, status api.OperationStatus, steps ...api.OperationStep) {
		at := day.Add(-ended)
		rec := store.Operation{ID: id, Kind: "gone", Status: status, CreatedAt: at, Steps: steps}
		if status != api.OperationRunning {
			rec.FinishedAt = &at
		}
		if err := j.SaveOperation(ctx, rec); err != nil {
			t.Fatal(err)
		}
	}
	add("old", 24*time.Hour+time.Second, api.OperationSucceeded)
	add("old but stuck", 90*24*time.Hour, api.OperationFailed, api.OperationStep{Name: "A", Status: stepUndoFailed})
	add("young", 24*time.Hour-time.Second, api.OperationFailed)
	for i := range 1005 {
		add(fmt.Sprintf("%04d", i), time.Duration(2000-i)*time.Second, api.OperationSucceeded)
	}
	r := newRegistry(t, j, nil)
	op, todo := gated(t, r)
	if err := r.Recover(ctx); err != nil {
		t.Fatal(err)
	}
	for id, kept := range map[string]bool{"old": false, "old but stuck": true, "young": false, "0004": false, "0005": true, "1004": true, op.ID(): true} {
		if _, err := r.Get(ctx, id); (err == nil) != kept {
			t.Errorf("%s: kept %v, want %v", id, err == nil, kept)
		}
	}
	// With few of them, their age alone decides.
	few := newMemory()
	for id, ended := range map[string]time.Duration{"old": 24*time.Hour + time.Second, "young": 24*time.Hour - time.Second} {
		at := day.Add(-ended)
		rec := store.Operation{ID: id, Kind: "gone", Status: api.OperationSucceeded, CreatedAt: at, FinishedAt: &at}
		if err := few.SaveOperation(ctx, rec); err != nil {
			t.Fatal(err)
		}
	}
	aged := newRegistry(t, few, nil)
	if err := aged.Recover(ctx); err != nil {
		t.Fatal(err)
	}
	for id, kept := range map[string]bool{"old": false, "young": true} {
		if _, err := aged.Get(ctx, id); (err == nil) != kept {
			t.Errorf("of few, %s: kept %v, want %v", id, err == nil, kept)
		}
	}
	pruned, err := r.Prune(ctx)
	if err != nil || len(pruned) != 1001 {
		t.Errorf("%d pruned, %v", len(pruned), err)
	}
	list, err := r.List(ctx, Filter{})
	if err != nil || len(list) != 1 || list[0].ID != op.ID() {
		t.Errorf("left %v, %v", list, err)
	}
	close(todo)
	wait(t, r, op.ID())
}

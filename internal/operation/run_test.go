package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

func TestTheOrderOfThings(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ steps, order, status, each string }{
		{"", "", "succeeded", ""},
		{"A", "+A", "succeeded", "done"},
		{"A B C", "+A +B +C", "succeeded", "done done done"},
		// A failure undoes backwards, the failing one included.
		{"A!", "+A -A", "failed", "undone"},
		{"A B C!", "+A +B +C -C -B -A", "failed", "undone undone undone"},
		{"A! B C", "+A -A", "failed", "undone pending pending"},
		{"A B! C", "+A +B -B -A", "failed", "undone undone pending"},
		{"A~ B C!~", "+A +B +C -B", "failed", "undone undone undone"},
		// An undo that fails does not keep the others from theirs, and stays visible.
		{"A B? C!", "+A +B +C -C -B -A", "failed", "undone undo-failed undone"},
		{"A? B? C!?", "+A +B +C -C -B -A", "failed", "undo-failed undo-failed undo-failed"},
		// Cancelled at each step.
		{"Ac B C", "+A -A", "cancelled", "undone pending pending"},
		{"A Bc C", "+A +B -B -A", "cancelled", "undone undone pending"},
		{"A B Cc", "+A +B +C -C -B -A", "cancelled", "undone undone undone"},
		// Cancelled, though the step ends well: the next one is not done, nor undone but in name.
		{"AC B C", "+A -B -A", "cancelled", "undone undone pending"},
		{"A BC C", "+A +B -C -B -A", "cancelled", "undone undone undone"},
		// Too late.
		{"A B CC", "+A +B +C", "succeeded", "done done done"},
		// Cancelled, and stuck: that is a failure.
		{"A? Bc", "+A +B -B -A", "failed", "undo-failed undone"},
		// A panic is a failure of the step.
		{"A B*", "+A +B -B -A", "failed", "undone undone"},
		{"A% B!", "+A +B -B -A", "failed", "undo-failed undone"},
	} {
		t.Run(tc.steps, func(t *testing.T) {
			t.Parallel()
			j := newMemory()
			r := newRegistry(t, j, nil)
			s := &script{line: tc.steps}
			r.Register(s.kind(Undo))
			op, err := r.Begin(t.Context(), "script", "target", nil)
			if err != nil {
				t.Fatal(err)
			}
			o := wait(t, r, op.ID())
			if s.String() != tc.order {
				t.Errorf("order %q, want %q", s, tc.order)
			}
			if string(o.Status) != tc.status || statuses(o) != tc.each {
				t.Errorf("status %q with %q, want %q with %q", o.Status, statuses(o), tc.status, tc.each)
			}
			if (o.Error != nil) != (tc.status != "succeeded") || o.FinishedAt == nil {
				t.Errorf("%+v", o)
			}
			switch {
			case strings.Contains(tc.each, "undo-failed") && !strings.Contains(o.Error.Message, "cannot undo"):
				t.Errorf("the undo's failure is hidden: %v", o.Error)
			case strings.Contains(tc.steps, "!") && !strings.Contains(o.Error.Message, errDo.Error()):
				t.Errorf("the cause is hidden: %v", o.Error)
			case tc.status == "cancelled" && o.Error.Kind != api.KindCancelled:
				t.Errorf("kind %s", o.Error.Kind)
			}
			if o.Error != nil && o.Error.OperationID != op.ID() {
				t.Errorf("the error does not name the operation: %+v", o.Error)
			}
			// The journal says the same as was told.
			stored, err := newRegistry(t, j, nil).Get(t.Context(), op.ID())
			if err != nil || stored.Status != o.Status || statuses(stored) != tc.each {
				t.Errorf("the journal holds %q with %q, %v", stored.Status, statuses(stored), err)
			}
		})
	}
}

func TestAStepIsJournalledBeforeItRuns(t *testing.T) {
	t.Parallel()
	j := newMemory()
	r := newRegistry(t, j, nil)
	check := func(want string) func(context.Context, *Op) error {
		return func(_ context.Context, op *Op) error {
			rec, err := j.Operation(context.Background(), op.ID())
			if err != nil {
				return err
			}
			if got := statuses(toAPI(rec, api.Progress{})); got != want {
				t.Errorf("the journal holds %q, want %q", got, want)
			}
			return nil
		}
	}
	last := check("done done running")
	r.Register(Kind{Name: "k", Steps: func(*Op) ([]Step, error) {
		return []Step{
			{Name: "A", Do: check("running pending pending"), Undo: check("done undone undone")},
			{Name: "B", Do: check("done running pending"), Undo: check("done done undone")},
			{Name: "C", Do: func(ctx context.Context, op *Op) error { return errors.Join(last(ctx, op), errDo) }, Undo: check("done done failed")},
		}, nil
	}})
	op, err := r.Begin(t.Context(), "k", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if o := wait(t, r, op.ID()); o.Status != api.OperationFailed {
		t.Error(o.Status)
	}
	// One write for each step's beginning, one for the failure, one for each
	// undo, one for the end.
	if n := len(j.saves()); n != 3+1+3+1 {
		t.Errorf("%d writes of the journal", n)
	}
}

func TestTheErrorKeepsItsKindAndHint(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, newMemory(), nil)
	r.Register(Kind{Name: "k", Steps: func(*Op) ([]Step, error) {
		return []Step{{Name: "A", Do: func(context.Context, *Op) error {
			return fmt.Errorf("cannot start: %w", api.Errorf(api.KindNoSpace, "the disk is full").WithHint("df -h"))
		}}}, nil
	}})
	op, err := r.Begin(t.Context(), "k", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	o := wait(t, r, op.ID())
	if o.Error.Kind != api.KindNoSpace || o.Error.Hint != "df -h" || o.Error.Message != "cannot start: the disk is full" {
		t.Errorf("%+v", o.Error)
	}
}

func TestNothingRunsThatCannotBeJournalled(t *testing.T) {
	t.Parallel()
	full := api.Errorf(api.KindNoSpace, "disk full")
	for name, tc := range map[string]struct {
		fail   func(o store.Operation) bool
		begins bool
		order  string
		status api.OperationStatus
	}{
		"the beginning": {func(store.Operation) bool { return true }, false, "", ""},
		"the second step": {func(o store.Operation) bool {
			return o.Steps[1].Status == stepRunning && o.Status == api.OperationRunning
		},
			true, "+A -B -A", api.OperationFailed},
		"everything after": {func(o store.Operation) bool { return o.Steps[0].Status != stepRunning }, true, "+A -B -A", api.OperationFailed},
		"only the end":     {func(o store.Operation) bool { return o.FinishedAt != nil }, true, "+A +B", api.OperationSucceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newMemory()
			j.fail = func(o store.Operation) error {
				if tc.fail(o) {
					return full
				}
				return nil
			}
			r := newRegistry(t, j, nil)
			s := &script{line: "A B"}
			r.Register(s.kind(Undo))
			op, err := r.Begin(t.Context(), "script", "", nil)
			if (err == nil) != tc.begins {
				t.Fatal(err)
			}
			if err == nil {
				if o := wait(t, r, op.ID()); o.Status != tc.status {
					t.Errorf("%+v", o)
				}
				// What could not be written down is still told by this daemon.
				if o, err := r.Get(t.Context(), op.ID()); err != nil || o.Status != tc.status {
					t.Error(o, err)
				}
			} else if api.KindOf(err) != api.KindNoSpace {
				t.Error(err)
			}
			if s.String() != tc.order {
				t.Errorf("order %q, want %q", s, tc.order)
			}
		})
	}
}

func TestNotesParametersAndResult(t *testing.T) {
	t.Parallel()
	j := newMemory()
	r := newRegistry(t, j, nil)
	type params struct{ Name string }
	r.Register(Kind{Name: "k", Steps: func(op *Op) ([]Step, error) {
		var p params
		if err := op.Params(&p); err != nil {
			return nil, err
		}
		return []Step{{Name: p.Name, Do: func(_ context.Context, op *Op) error {
			var s string
			if op.Get("path", &s) {
				t.Error("there was a note")
			}
			if err := op.Set("path", "/tmp/x"); err != nil {
				return err
			}
			rec, err := j.Operation(context.Background(), op.ID())
			if err != nil || string(rec.Notes) != `{"path":"/tmp/x"}` {
				t.Errorf("the journal holds %s, %v", rec.Notes, err)
			}
			var n int
			if !op.Get("path", &s) || s != "/tmp/x" || op.Get("path", &n) {
				t.Error(s)
			}
			return op.SetResult(map[string]int{"answer": 42})
		}}}, nil
	}})
	op, err := r.Begin(t.Context(), "k", "me", params{"step of p"})
	if err != nil {
		t.Fatal(err)
	}
	o := wait(t, r, op.ID())
	if string(o.Result) != `{"answer":42}` || o.Steps[0].Name != "step of p" || o.Target != "me" || o.Kind != "k" {
		t.Errorf("%+v", o)
	}
	if op.Set("f", func() {}) == nil || op.SetResult(make(chan int)) == nil {
		t.Error("what is no JSON was noted")
	}
	if _, err := r.Begin(t.Context(), "k", "", make(chan int)); err == nil {
		t.Error("parameters that are no JSON")
	}
	if _, err := r.Begin(t.Context(), "k", "", 5); err == nil {
		t.Error("parameters that do not fit")
	}
	if _, err := r.Begin(t.Context(), "unknown", "", nil); err == nil {
		t.Error("an unknown kind")
	}
}

func TestBeginningEndsNothingWithItsRequest(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, newMemory(), nil)
	begun := make(chan struct{})
	r.Register(Kind{Name: "k", Steps: func(*Op) ([]Step, error) {
		return []Step{{Name: "A", Do: func(ctx context.Context, _ *Op) error {
			<-begun
			return ctx.Err()
		}}}, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	op, err := r.Begin(ctx, "k", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	close(begun)
	if o := wait(t, r, op.ID()); o.Status != api.OperationSucceeded {
		t.Errorf("%+v", o)
	}
}

func TestCancelFromOutside(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, newMemory(), nil)
	r.Register(Kind{Name: "k", Steps: func(*Op) ([]Step, error) {
		return []Step{{Name: "A", Do: func(ctx context.Context, _ *Op) error { <-ctx.Done(); return ctx.Err() }}}, nil
	}})
	op, err := r.Begin(t.Context(), "k", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := r.Wait(ctx, op.ID()); api.KindOf(err) != api.KindTimeout {
		t.Error(err)
	}
	if err := r.Cancel(op.ID()); err != nil {
		t.Fatal(err)
	}
	if o := wait(t, r, op.ID()); o.Status != api.OperationCancelled {
		t.Errorf("%+v", o)
	}
	if err := r.Cancel(op.ID()); api.KindOf(err) != api.KindBadState {
		t.Error(err)
	}
	if err := r.Cancel("nobody"); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	// A step that heeds no cancel is the last one all the same, and taken back.
	begun, let, order := make(chan struct{}), make(chan struct{}), ""
	r.Register(Kind{Name: "deaf", Steps: func(*Op) ([]Step, error) {
		return []Step{
			{Name: "A", Do: func(context.Context, *Op) error { close(begun); <-let; order += "+A"; return nil },
				Undo: func(context.Context, *Op) error { order += "-A"; return nil }},
			{Name: "B", Do: func(context.Context, *Op) error { order += "+B"; return nil }},
		}, nil
	}})
	if op, err = r.Begin(t.Context(), "deaf", "", nil); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := r.Cancel(op.ID()); err != nil {
		t.Fatal(err)
	}
	close(let)
	if o := wait(t, r, op.ID()); o.Status != api.OperationCancelled || order != "+A-A" {
		t.Errorf("%s %s", o.Status, order)
	}
}

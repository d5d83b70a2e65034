package operation

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
	"github.com/google/go-cmp/cmp"
)

// world is what an operation's steps make; it outlives daemons.
type world struct {
	mu   sync.Mutex
	made map[string]bool
	ran  string // the steps this daemon ran
}

func (w *world) set(name string, there bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made[name] = there
}

func (w *world) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, n := range []string{"A", "B", "C"} {
		if w.made[n] {
			list = append(list, n)
		}
	}
	return strings.Join(list, "")
}

// making is an operation of three steps that make A, B and C; fails names the
// one that makes its thing and then fails.
func (w *world) making(c OnCrash, fails string) Kind {
	return Kind{Name: "make", OnCrash: c, Steps: func(*Op) ([]Step, error) {
		var steps []Step
		for _, n := range []string{"A", "B", "C"} {
			steps = append(steps, Step{Name: n,
				Do: func(context.Context, *Op) error {
					w.set(n, true)
					w.ran += n
					if n == fails {
						return errDo
					}
					return nil
				},
				Undo: func(context.Context, *Op) error { w.set(n, false); return nil },
			})
		}
		return steps, nil
	}}
}

// TestRecoveryAtEachPointOfTheJournal lets the daemon die after every single
// write of the journal, with the side effect that follows it done or not, reopens
// the same database and recovers.
func TestRecoveryAtEachPointOfTheJournal(t *testing.T) {
	t.Parallel()
	for _, onCrash := range []OnCrash{Resume, Undo, Fail} {
		for _, fails := range []string{"", "B", "C"} {
			t.Run(string(onCrash)+" fails "+fails, func(t *testing.T) {
				t.Parallel()
				j := newMemory()
				w := &world{made: map[string]bool{}}
				before := []string{} // the world when each record was written
				j.fail = func(store.Operation) error { before = append(before, w.String()); return nil }
				r := newRegistry(t, j, nil)
				r.Register(w.making(onCrash, fails))
				op, err := r.Begin(t.Context(), "make", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				wait(t, r, op.ID())
				saves := j.saves()
				path := filepath.Join(t.TempDir(), "banger.db")
				for i, rec := range saves {
					after := w.String()
					if i+1 < len(saves) {
						after = before[i+1]
					}
					for _, left := range []string{before[i], after} {
						crashHere(t, path, rec, left, onCrash, fails)
					}
				}
			})
		}
	}
}

func crashHere(t *testing.T, path string, rec store.Operation, left string, onCrash OnCrash, fails string) {
	t.Helper()
	ctx := t.Context()
	at := fmt.Sprintf("journal %s %s error %v, world %q", rec.Status, statuses(toAPI(rec, api.Progress{})), rec.Error != nil, left)
	db, err := store.Open(ctx, path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.SaveOperation(ctx, rec); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	if db, err = store.Open(ctx, path, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	w := &world{made: map[string]bool{}}
	for _, n := range left {
		w.set(string(n), true)
	}
	r := New(db, nil, func() time.Time { return day }, slog.New(slog.DiscardHandler))
	r.Register(w.making(onCrash, fails))
	if err := r.Recover(ctx); err != nil {
		t.Fatal(at, err)
	}
	o := wait(t, r, rec.ID)
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}

	status, things := api.OperationFailed, ""
	switch {
	case rec.Status != api.OperationRunning: // had ended
		status, things = rec.Status, left
	case onCrash == Fail:
		status, things = api.OperationInterrupted, left
	case rec.Error != nil: // was being undone
	case onCrash == Undo:
		status = api.OperationInterrupted
	case fails == "":
		status, things = api.OperationSucceeded, "ABC"
	}
	if o.Status != status || w.String() != things {
		t.Errorf("%s: recovered to %s with world %q, want %s with %q", at, o.Status, w, status, things)
	}
	for _, s := range rec.Steps {
		if s.Status == stepDone && strings.Contains(w.ran, s.Name) {
			t.Errorf("%s: %s was done and ran again", at, s.Name)
		}
	}
	stored, err := db.Operation(ctx, rec.ID)
	if err != nil || stored.Status != status || stored.FinishedAt == nil {
		t.Errorf("%s: the journal holds %s, %v", at, stored.Status, err)
	}
}

func TestResumingDoesNotRepeatWhatIsDone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		journal, order string
		onCrash        OnCrash
	}{
		{"running pending pending", "+A +B +C", Resume},
		{"done running pending", "+B +C", Resume},
		{"done done running", "+C", Resume},
		{"running pending pending", "-A", Undo},
		{"done running pending", "-B -A", Undo},
		{"done done running", "-C -B -A", Undo},
		{"done running pending", "", Fail},
	} {
		s := &script{line: "A B C"}
		j := newMemory()
		r := newRegistry(t, j, nil)
		r.Register(s.kind(tc.onCrash))
		put(t, j, "script", tc.journal)
		if err := r.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait(t, r, "op")
		if s.String() != tc.order {
			t.Errorf("%s %s: order %q, want %q", tc.onCrash, tc.journal, s, tc.order)
		}
	}
}

// put journals a running operation "op" with steps A, B, C of the statuses.
func put(t *testing.T, j *memory, kind, statuses string) {
	t.Helper()
	rec := store.Operation{ID: "op", Kind: kind, Status: api.OperationRunning, CreatedAt: day, Params: json.RawMessage("null")}
	for i, s := range strings.Fields(statuses) {
		rec.Steps = append(rec.Steps, api.OperationStep{Name: string(rune('A' + i)), Status: s})
	}
	if err := j.SaveOperation(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
}

func TestRecoveryByAnotherBanger(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		steps  string // of today; the journal has A B C
		order  string
		status api.OperationStatus
		each   string
	}{
		"a step more":      {"A B C D", "-B -A", api.OperationInterrupted, "undone undone pending"},
		"another order":    {"B A C", "-B -A", api.OperationInterrupted, "undone undone pending"},
		"a step gone":      {"A C", "-A", api.OperationFailed, "undone undo-failed pending"},
		"the pending gone": {"A B", "-B -A", api.OperationInterrupted, "undone undone pending"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{line: tc.steps}
			j := newMemory()
			r := newRegistry(t, j, nil)
			r.Register(s.kind(Resume))
			put(t, j, "script", "done running pending")
			if err := r.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			o := wait(t, r, "op")
			if s.String() != tc.order || o.Status != tc.status || statuses(o) != tc.each {
				t.Errorf("order %q, %s, %q, want %q, %s, %q", s, o.Status, statuses(o), tc.order, tc.status, tc.each)
			}
		})
	}
}

func TestRecoveryOfWhatCannotBeTakenUp(t *testing.T) {
	t.Parallel()
	j := newMemory()
	r := newRegistry(t, j, nil)
	r.Register(Kind{Name: "refuses", OnCrash: Resume, Steps: func(*Op) ([]Step, error) {
		return nil, api.Errorf(api.KindInvalid, "cannot read that")
	}})
	put(t, j, "unknown", "running")
	if err := r.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := wait(t, r, "op"); o.Status != api.OperationInterrupted || o.Error.Kind != api.KindUnsupported {
		t.Errorf("%+v", o)
	}
	put(t, j, "refuses", "running")
	if err := r.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := wait(t, r, "op"); o.Status != api.OperationInterrupted || o.Error.Kind != api.KindInvalid {
		t.Errorf("%+v", o)
	}
}

func TestCloseLeavesWorkForTheNextDaemon(t *testing.T) {
	t.Parallel()
	for _, onCrash := range []OnCrash{Resume, Undo, Fail} {
		t.Run(string(onCrash), func(t *testing.T) {
			t.Parallel()
			j := newMemory()
			var mu sync.Mutex
			var log []string
			note := func(s string) {
				mu.Lock()
				defer mu.Unlock()
				log = append(log, s)
			}
			started := make(chan struct{})
			var once sync.Once
			kind := Kind{Name: "k", OnCrash: onCrash, Steps: func(*Op) ([]Step, error) {
				return []Step{
					{Name: "A", Do: func(context.Context, *Op) error { note("+A"); return nil },
						Undo: func(context.Context, *Op) error { note("-A"); return nil }},
					{Name: "B", Do: func(ctx context.Context, _ *Op) error {
						note("+B")
						first := false
						once.Do(func() { first = true; close(started) })
						if first {
							<-ctx.Done()
							return ctx.Err()
						}
						return nil
					}, Undo: func(context.Context, *Op) error { note("-B"); return nil }},
				}, nil
			}}
			r := newRegistry(t, j, nil)
			r.Register(kind)
			op, err := r.Begin(t.Context(), "k", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			<-started
			watched := r.Watch(t.Context(), op.ID())
			if err := r.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range watched { // ends
			}
			if _, err := r.Wait(t.Context(), op.ID()); api.KindOf(err) != api.KindUnavailable {
				t.Error(err)
			}
			if _, err := r.Begin(t.Context(), "k", "", nil); api.KindOf(err) != api.KindUnavailable {
				t.Error(err)
			}
			rec, err := j.Operation(t.Context(), op.ID())
			if err != nil || rec.Status != api.OperationRunning || rec.Steps[1].Status != stepRunning {
				t.Errorf("the journal holds %+v, %v", rec, err)
			}

			next := newRegistry(t, j, nil)
			next.Register(kind)
			if err := next.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			o := wait(t, next, op.ID())
			want, status := map[OnCrash]string{Resume: "+A +B +B", Undo: "+A +B -B -A", Fail: "+A +B"}[onCrash], api.OperationInterrupted
			if onCrash == Resume {
				status = api.OperationSucceeded
			}
			if got := strings.Join(log, " "); got != want || o.Status != status {
				t.Errorf("%q %s, want %q %s", got, o.Status, want, status)
			}
		})
	}
}

func TestCloseWaitsForAnUndoAsLongAsItMay(t *testing.T) {
	t.Parallel()
	j := newMemory()
	undoing := make(chan struct{})
	stuck := true
	kind := Kind{Name: "k", OnCrash: Resume, Steps: func(*Op) ([]Step, error) {
		return []Step{{Name: "A", Do: func(context.Context, *Op) error { return errDo },
			Undo: func(ctx context.Context, _ *Op) error {
				if !stuck {
					return nil
				}
				close(undoing)
				<-ctx.Done()
				return ctx.Err()
			}}}, nil
	}}
	r := newRegistry(t, j, nil)
	r.Register(kind)
	op, err := r.Begin(t.Context(), "k", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	<-undoing
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	stuck = false
	next := newRegistry(t, j, nil)
	next.Register(kind)
	if err := next.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := wait(t, next, op.ID())
	if o.Status != api.OperationFailed || statuses(o) != "undone" || o.Error.Message != errDo.Error() {
		t.Errorf("%+v", o)
	}
	if diff := cmp.Diff([]api.Operation{}, next.Running(Filter{})); diff != "" {
		t.Error(diff)
	}
}

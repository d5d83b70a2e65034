package operation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// memory is a journal that keeps every record it was ever handed.
type memory struct {
	mu   sync.Mutex
	recs map[string]store.Operation
	all  []store.Operation
	fail func(o store.Operation) error
}

func newMemory() *memory { return &memory{recs: map[string]store.Operation{}} }

func (m *memory) SaveOperation(_ context.Context, o store.Operation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(o); err != nil {
			return err
		}
	}
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var c store.Operation
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	m.recs[o.ID] = c
	m.all = append(m.all, c)
	return nil
}

func (m *memory) saves() []store.Operation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all)
}

func (m *memory) Operation(_ context.Context, id string) (store.Operation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.recs[id]
	if !ok {
		return o, api.Errorf(api.KindNotFound, "no operation %s", id)
	}
	return o, nil
}

func (m *memory) Operations(context.Context) ([]store.Operation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []store.Operation
	for _, o := range m.recs {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b store.Operation) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

func (m *memory) DeleteOperations(_ context.Context, ids []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.recs, id)
	}
	return nil
}

// clock is set by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newRegistry(t *testing.T, j Journal, notify func(api.Operation)) *Registry {
	t.Helper()
	r := New(j, notify, (&clock{t: day}).now, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

// script is an operation in one line: the names of its steps, each with marks:
//
//	!  Do fails          ?  Undo fails       *  Do panics     %  Undo panics
//	c  is cancelled while it does, and heeds it
//	C  is cancelled while it does, but ends well
//	~  has no Undo
//
// Names are capital letters. What happened is in log, also one line.
type script struct {
	line string
	mu   sync.Mutex
	log  []string
}

func (s *script) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, what)
}

func (s *script) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, " ")
}

var errDo, errUndo = errors.New("it broke"), errors.New("it stuck")

func (s *script) kind(c OnCrash) Kind {
	return Kind{Name: "script", OnCrash: c, Steps: func(*Op) ([]Step, error) {
		var steps []Step
		for f := range strings.FieldsSeq(s.line) {
			steps = append(steps, s.step(f[:1], f[1:]))
		}
		return steps, nil
	}}
}

func (s *script) step(name, marks string) Step {
	has := func(m string) bool { return strings.Contains(marks, m) }
	st := Step{Name: name, Do: func(ctx context.Context, op *Op) error {
		s.note("+" + name)
		switch {
		case has("!"):
			return errDo
		case has("*"):
			panic("at the disco")
		case has("c"):
			op.Cancel()
			<-ctx.Done()
			return ctx.Err()
		case has("C"):
			op.Cancel()
		}
		return nil
	}}
	if !has("~") {
		st.Undo = func(ctx context.Context, op *Op) error {
			if ctx.Err() != nil {
				s.note("dead-context")
			}
			s.note("-" + name)
			switch {
			case has("?"):
				return errUndo
			case has("%"):
				panic("again")
			}
			return nil
		}
	}
	return st
}

func wait(t *testing.T, r *Registry, id string) api.Operation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o, err := r.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func statuses(o api.Operation) string {
	var list []string
	for _, s := range o.Steps {
		list = append(list, s.Status)
	}
	return strings.Join(list, " ")
}

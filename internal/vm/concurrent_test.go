package vm

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/operation"
)

func opFilter() operation.Filter { return operation.Filter{} }

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// N creates overlap: all are inside the pull at once, and all are inside the
// boot at once. Were one of them under a shared lock, this would never end.
func TestCreatesOverlap(t *testing.T) {
	t.Parallel()
	const n = 8
	w := newWorld(t)
	w.im.on = true
	w.im.in.Add(n)
	w.ks.barrier = &sync.WaitGroup{}
	w.ks.barrier.Add(n)
	var ops []api.Operation
	for i := range n {
		op, err := w.m.Create(bg, api.CreateVM{Name: fmt.Sprintf("vm-%d", i)})
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, op)
	}
	for _, op := range ops {
		w.must(op, nil)
	}
	all, err := w.m.List(bg, []string{"status=running"})
	if err != nil || len(all) != n {
		t.Errorf("%d running: %v", len(all), err)
	}
}

// Of N creates of one name at once, one wins and the others hear exists.
func TestCreatesOfOneName(t *testing.T) {
	t.Parallel()
	const n = 8
	w := newWorld(t)
	w.im.on = true
	w.im.in.Add(n) // all pass the check at the door
	var ops []api.Operation
	for range n {
		op, err := w.m.Create(bg, api.CreateVM{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, op)
	}
	won := 0
	for _, op := range ops {
		switch op := w.settle(op, nil); {
		case op.Error == nil:
			won++
		case op.Error.Kind != api.KindExists:
			t.Error(op.Error)
		}
	}
	if won != 1 || w.ks.running() != 1 {
		t.Errorf("%d won, %d run", won, w.ks.running())
	}
}

func TestCreateVersusDelete(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"mkfs", "launch", "booting", ""} {
		t.Run("at "+at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			release := func() {}
			if at != "" {
				release = w.f.stall(at)
			}
			defer release()
			op, err := w.m.Create(bg, api.CreateVM{Name: "web"})
			if err != nil {
				t.Fatal(err)
			}
			w.eventually("reserved", func() bool { all, _ := w.m.List(bg, nil); return len(all) == 1 })
			if _, err := w.m.Delete(bg, "web", false); api.KindOf(err) != api.KindBadState {
				t.Errorf("delete while creating: %v", err)
			}
			w.must(w.m.Delete(bg, "web", true))
			w.settle(op, nil)
			release()
			w.nothingLeft()
		})
	}
}

func TestVerbsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("web")
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var op api.Operation
			var err error
			switch i % 4 {
			case 0:
				op, err = w.m.Stop(bg, "web", api.StopVM{})
			case 1:
				op, err = w.m.Start(bg, "web")
			case 2:
				op, err = w.m.Restart(bg, "web")
			case 3:
				_, err = w.m.Kill(bg, "web", api.KillVM{})
			}
			if err == nil && op.ID != "" {
				_, err = w.ops.Wait(bg, op.ID)
			}
			if err != nil && api.KindOf(err) != api.KindBadState {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	v := w.show("web")
	if runs := w.ks.running() == 1; runs != (v.Status == api.StatusRunning) {
		t.Errorf("%s, %d run", v.Status, w.ks.running())
	}
	w.must(w.m.Delete(bg, "web", true))
	w.nothingLeft()
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := api.CreateVM{RequestID: "r1", VCPUs: 2}
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Add(1)
		go func() {
			defer wg.Done()
			op, err := w.m.Create(bg, req)
			if err == nil {
				op, err = w.ops.Wait(bg, op.ID)
			}
			if err != nil || op.Error != nil {
				t.Errorf("%v %v", err, op.Error)
				return
			}
			var v api.VM
			if err := json.Unmarshal(op.Result, &v); err != nil {
				t.Error(err)
			}
			ids[i] = v.ID
		}()
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("ids %v", ids)
		}
	}
	op := w.settle(w.m.Create(bg, req))
	if !strings.Contains(string(op.Result), `"changed":false`) {
		t.Errorf("%s", op.Result)
	}
	req.VCPUs = 1
	if _, err := w.m.Create(bg, req); api.KindOf(err) != api.KindExists {
		t.Errorf("other parameters: %v", err)
	}
	// After a failure the same id may be tried again.
	w.f.set("image", errFault)
	req.RequestID = "r2"
	if op := w.settle(w.m.Create(bg, req)); op.Error == nil {
		t.Error("no error")
	}
	w.f.set("image", nil)
	w.eventually("released", func() bool { w.m.mu.Lock(); defer w.m.mu.Unlock(); return len(w.m.requests) == 0 })
	w.must(w.m.Create(bg, req))
}

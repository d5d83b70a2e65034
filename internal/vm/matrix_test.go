package vm

import (
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// The whole matrix, written out: what each verb may do in each status.
func TestGateMatrix(t *testing.T) {
	t.Parallel()
	const (
		no = refuse
		ok = allow
		up = nothing
		jn = join
		pr = preempt
	)
	// columns: creating starting running paused stopping stopped deleting broken
	want := map[verb][8]verdict{
		verbStart:       {no, jn, up, no, no, ok, no, no},
		verbStop:        {no, no, ok, ok, jn, up, no, no},
		verbRestart:     {no, no, ok, no, no, ok, no, no},
		verbKill:        {no, pr, ok, ok, pr, up, no, ok},
		verbDelete:      {no, no, no, no, no, ok, jn, ok},
		verbForceDelete: {pr, pr, ok, ok, pr, ok, jn, ok},
		verbRename:      {no, ok, ok, ok, ok, ok, no, ok},
		verbSet:         {no, no, ok, no, no, ok, no, no},
		verbExec:        {no, no, ok, no, no, no, no, no},
	}
	if len(want) != len(gates) {
		t.Errorf("%d verbs here, %d there", len(want), len(gates))
	}
	for v, row := range want {
		for i, s := range allStatuses {
			got, err := gate(v, "web", s)
			if got != row[i] {
				t.Errorf("%s while %s: %d, want %d", v, s, got, row[i])
			}
			if (err != nil) != (row[i] == no) {
				t.Errorf("%s while %s: error %v", v, s, err)
			}
			if err != nil && (api.KindOf(err) != api.KindBadState || api.AsError(err).Hint == "") {
				t.Errorf("%s while %s: %v without its kind or hint", v, s, err)
			}
		}
	}
}

// Each verb, called for real on a VM in each status, is refused where the gate
// says so, and changes nothing then.
func TestVerbsPassTheGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	call := map[verb]func() error{
		verbStart:   func() error { _, err := w.m.Start(bg, "web"); return err },
		verbStop:    func() error { _, err := w.m.Stop(bg, "web", api.StopVM{}); return err },
		verbRestart: func() error { _, err := w.m.Restart(bg, "web"); return err },
		verbKill:    func() error { _, err := w.m.Kill(bg, "web", api.KillVM{}); return err },
		verbDelete:  func() error { _, err := w.m.Delete(bg, "web", false); return err },
		verbRename:  func() error { _, err := w.m.Rename(bg, "web", api.RenameVM{Name: "other"}); return err },
		verbSet:     func() error { n := 2; _, err := w.m.Set(bg, "web", api.SetVM{VCPUs: &n}); return err },
		verbExec:    func() error { return w.m.Exec(bg, "web", api.Exec{Argv: []string{"true"}}, newClient()) },
	}
	v := w.create("web")
	mc := w.m.machine(v.ID)
	for _, s := range allStatuses {
		if s == api.StatusBroken {
			w.must(w.m.Stop(bg, "web", api.StopVM{}))
			if _, err := w.db.UpdateVM(bg, v.ID, func(v *store.VM) error { v.Status = s; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		leave := mc.enter(s, "")
		for verb, do := range call {
			if gates[verb][s] != refuse {
				continue
			}
			if err := do(); api.KindOf(err) != api.KindBadState {
				t.Errorf("%s while %s: %v", verb, s, err)
			}
		}
		if got := w.show("web").Status; got != s {
			t.Errorf("status is %s, not %s", got, s)
		}
		leave()
	}
}

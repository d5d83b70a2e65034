package vm

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

func TestRecoverAdopts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		harm func(path string) error
	}{
		{"whole handle", func(string) error { return nil }},
		{"no handle", os.Remove},
		{"corrupt handle", func(p string) error { return os.WriteFile(p, []byte("{\"vm_id\":"), 0o600) }},
		{"handle of another", func(p string) error { return os.WriteFile(p, []byte(`{"vm_id":"x","keeper_pid":1}`), 0o600) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.create("web")
			w.leave()
			if err := tt.harm(w.l.VM(v.ID).Handle()); err != nil {
				t.Fatal(err)
			}
			w.boot()
			w.eventually("ready", func() bool { return w.show("web").Ready })
			if v := w.show("web"); v.Status != api.StatusRunning || v.Error != nil {
				t.Fatalf("%+v", v)
			}
			if h, ok := readHandle(w.l.VM(v.ID), v.ID); !ok || h.KeeperPID != w.ks.get(v.ID).pid {
				t.Errorf("handle not rebuilt: %+v", h)
			}
			c := newClient()
			if err := w.m.Exec(bg, "web", sh("exit 5"), c); err != nil || c.exit.Code != 5 {
				t.Errorf("exec: %v", err)
			}
			w.must(w.m.Stop(bg, "web", api.StopVM{}))
		})
	}
}

func TestRecoverMarksStopped(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(w *world, k *fakeKeeper)
		want string
	}{
		{"powered off", func(_ *world, k *fakeKeeper) { k.exit(vmm.Exit{Reason: vmm.ReasonPowerOff}) }, "powered itself off"},
		{"keeper died", func(_ *world, k *fakeKeeper) { k.die() }, "keeper died"},
		{"host restarted", func(w *world, k *fakeKeeper) {
			k.die()
			h, _ := readHandle(k.dir, k.id)
			h.HostBoot = "boot-0"
			if err := writeHandle(k.dir, h); err != nil {
				w.t.Fatal(err)
			}
		}, "host was restarted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.create("web")
			w.leave()
			tt.end(w, w.ks.get(v.ID))
			w.boot()
			if v := w.show("web"); v.Status != api.StatusStopped || v.Error == nil || !strings.Contains(v.Error.Message, tt.want) {
				t.Fatalf("%+v", v)
			}
			w.must(w.m.Start(bg, "web"))
		})
	}
}

// The daemon dies in each phase of a create: the next one leaves nothing.
func TestRecoverUndoesACreate(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"image", "accel", "mkfs", "launch", "booting"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			release := w.f.stall(at)
			defer release()
			if _, err := w.m.Create(bg, api.CreateVM{Name: "web"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Millisecond)
			w.leave()
			release()
			w.boot()
			w.eventually("undone", func() bool { return len(w.ops.Running(opFilter())) == 0 })
			w.nothingLeft()
			w.create("web")
		})
	}
}

// A kill -9 leaves a keeper that boots on, and no orderly word from the old
// daemon: its record and journal are as at that moment.
func TestRecoverUndoesACreateWhoseGuestRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	w.leave()
	w.crash(kindCreate, v.ID, createParams{ID: v.ID, Request: w.m.fill(api.CreateVM{Name: "web"})}, "resolve", "reserve", "start")
	w.boot()
	w.eventually("undone", func() bool { return len(w.ops.Running(opFilter())) == 0 })
	w.nothingLeft()
}

// A request that is sent again while its first try is being undone makes a VM
// anew, and is not given the one that goes.
func TestRecoverAndTheSameRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := api.CreateVM{Name: "web", RequestID: "r1"}
	first := w.settle(w.m.Create(bg, req))
	w.leave()
	full := w.m.fill(req)
	w.crash(kindCreate, first.Target, createParams{ID: first.Target, Request: full, Hash: hash(full, "")}, "resolve", "reserve", "start")
	release := w.f.stall("delete row")
	defer release()
	w.boot()
	w.eventually("being undone", func() bool { return w.f.waiting("delete row") })
	time.AfterFunc(50*time.Millisecond, release)
	second := w.settle(w.m.Create(bg, req))
	if second.Error != nil || second.Target == first.Target {
		t.Fatalf("%+v", second)
	}
	if v := w.show("web"); v.ID != second.Target || v.Status != api.StatusRunning {
		t.Errorf("%+v", v)
	}
}

// What an operation did before its daemon died counts as its doing.
func TestRecoverTellsWhatChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, r := w.create("stop"), w.create("restart")
	w.must(w.m.Stop(bg, "stop", api.StopVM{}))
	w.leave()
	w.crash(kindStop, s.ID, verbParams{ID: s.ID, Ref: "stop"}, "stop")
	w.crash(kindRestart, r.ID, verbParams{ID: r.ID, Ref: "restart"}, "stop", "start")
	w.boot()
	for _, v := range []api.VM{s, r} {
		op, err := w.ops.Wait(bg, "op"+v.ID)
		var got api.VM
		if err == nil {
			err = json.Unmarshal(op.Result, &got)
		}
		if err != nil || op.Error != nil || !got.Changed {
			t.Errorf("%s: %+v %v", v.Name, op, err)
		}
	}
}

func TestRecoverResumesStopAndDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v, d := w.create("stop"), w.create("delete")
	s := w.create("start")
	w.leave()
	w.crash(kindStop, v.ID, verbParams{ID: v.ID, Ref: "stop"}, "stop")
	w.crash(kindDelete, d.ID, verbParams{ID: d.ID, Ref: "delete", Force: true}, "delete")
	w.crash(kindStart, s.ID, verbParams{ID: s.ID, Ref: "start"}, "start")
	w.boot()
	w.eventually("finished", func() bool { return len(w.ops.Running(opFilter())) == 0 })
	if v := w.show("stop"); v.Status != api.StatusStopped || v.Error != nil {
		t.Errorf("%+v", v)
	}
	if v := w.show("start"); v.Status != api.StatusRunning {
		t.Errorf("%+v", v)
	}
	if _, err := w.m.Show(bg, "delete"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("%v", err)
	}
}

// crash journals an operation as the last daemon left it: in its last step.
func (w *world) crash(kind, target string, params any, steps ...string) {
	w.t.Helper()
	db, err := store.Open(bg, w.l.Database(), testLog())
	if err != nil {
		w.t.Fatal(err)
	}
	rec := store.Operation{ID: "op" + target, Kind: kind, Target: target, Status: api.OperationRunning, CreatedAt: time.Now(), Params: mustJSON(params)}
	for i, s := range steps {
		status := "done"
		if i == len(steps)-1 {
			status = "running"
		}
		rec.Steps = append(rec.Steps, api.OperationStep{Name: s, Status: status})
	}
	if err := db.SaveOperation(bg, rec); err != nil {
		w.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// What a run wants of its VM holds though the daemon dies under it.
func TestRecoverHonoursTheEndOfARun(t *testing.T) {
	t.Parallel()
	for _, end := range []string{api.EndStop, api.EndRemove} {
		for _, dead := range []bool{false, true} {
			t.Run(end, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				v := w.create("web")
				if _, err := w.db.UpdateVM(bg, v.ID, func(v *store.VM) error {
					v.End, v.AutoRemove = end, end == api.EndRemove
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				w.leave()
				if dead {
					w.ks.get(v.ID).die()
				}
				w.boot()
				if end == api.EndRemove {
					w.nothingLeft()
					return
				}
				w.eventually("stopped", func() bool {
					rec, err := w.db.VM(bg, v.ID)
					return err == nil && rec.End == "" && w.show("web").Status == api.StatusStopped
				})
			})
		}
	}
}

func TestRecoverKeepsDisksOfNoRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	w.leave()
	db, err := store.Open(bg, w.l.Database(), testLog())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteVM(bg, v.ID); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.boot()
	if _, err := os.Stat(w.l.VM(v.ID).WorkDisk()); err != nil {
		t.Errorf("a lost record cost the disk: %v", err)
	}
	if all, err := w.m.List(bg, nil); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
}

// One broken VM never breaks list, nor the start of a daemon.
func TestOneBrokenVM(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.create("a")
	w.create("b")
	w.leave()
	dir := w.l.VM(a.ID)
	w.ks.get(a.ID).die()
	for _, p := range []string{dir.Handle(), dir.ExitFile(), dir.SystemDisk()} {
		_ = os.RemoveAll(p)
		if err := os.MkdirAll(p, 0o700); err != nil { // a folder where a file should be
			t.Fatal(err)
		}
	}
	w.boot()
	all, err := w.m.List(bg, nil)
	if err != nil || len(all) != 2 || all[0].Status != api.StatusStopped || all[1].Status != api.StatusRunning {
		t.Errorf("%+v %v", all, err)
	}
}

// What a keeper could not take away, as it was killed, goes with the daemon: at
// once, at the next one's start, and with the VM.
func TestAfterAKeeperItsGroupAndFolderGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	dir := w.m.d.Layout.VM(v.ID)
	leave := func() {
		if err := os.MkdirAll(filepath.Join(dir.VMMFolder(), "link"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(when string, before int) {
		t.Helper()
		if _, err := os.Stat(dir.VMMFolder()); !os.IsNotExist(err) || w.host.removedGroup(v.ID) <= before {
			t.Errorf("%s: the folder is there (%v), the group was removed %d times", when, err, w.host.removedGroup(v.ID))
		}
	}
	leave()
	w.ks.get(v.ID).die()
	w.eventually("stopped", func() bool { return w.show("web").Status == api.StatusStopped })
	gone("at once", 0)

	w.must(w.m.Start(bg, "web"))
	before := w.host.removedGroup(v.ID)
	w.leave()
	leave()
	w.ks.get(v.ID).die()
	w.boot()
	gone("next daemon", before)

	leave()
	before = w.host.removedGroup(v.ID)
	w.f.set("remove group", errors.New("busy"))
	w.settle(w.m.Delete(bg, "web", true))
	if v := w.show("web"); v.Status != api.StatusBroken {
		t.Errorf("with a group that stays the VM is %s", v.Status)
	}
	w.f.set("remove group", nil)
	w.must(w.m.Delete(bg, "web", true))
	gone("with the VM", before)
}

func TestKeeperThatDoesNotAnswerIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	w.leave()
	w.f.set("attach", api.Errorf(api.KindUnavailable, "no answer"))
	w.boot()
	if v := w.show("web"); v.Status != api.StatusStopped || v.Error == nil {
		t.Errorf("%+v", v)
	}
	if !w.ks.get(v.ID).over() {
		t.Error("the keeper runs on")
	}
	w.f.set("attach", nil)
	w.must(w.m.Start(bg, "web"))
}

func TestWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", NoStart: true}))
	got := make(chan error, 1)
	go func() { _, err := w.m.Wait(bg, "web", api.WaitRunning); got <- err }()
	w.must(w.m.Start(bg, "web"))
	if err := <-got; err != nil {
		t.Error(err)
	}
	go func() { _, err := w.m.Wait(bg, "web", api.WaitStopped); got <- err }()
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if err := <-got; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(bg, 10*time.Millisecond)
	defer cancel()
	if _, err := w.m.Wait(ctx, "web", api.WaitRunning); api.KindOf(err) != api.KindTimeout {
		t.Errorf("%v", err)
	}
	go func() { _, err := w.m.Wait(bg, "web", api.WaitRunning); got <- err }()
	time.Sleep(5 * time.Millisecond)
	w.must(w.m.Delete(bg, "web", false))
	if err := <-got; api.KindOf(err) != api.KindNotFound {
		t.Errorf("wait for a deleted vm: %v", err)
	}
	if _, err := w.m.Wait(bg, "web", "tea"); api.KindOf(err) != api.KindInvalid {
		t.Errorf("%v", err)
	}
}

// The daemon leaves in order while a guest boots: it boots on.
func TestLeavingDaemonLetsAStartGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", NoStart: true}))
	release := w.f.stall("booting")
	defer release()
	if _, err := w.m.Start(bg, "web"); err != nil {
		t.Fatal(err)
	}
	w.eventually("booting", func() bool { return w.ks.running() == 1 })
	w.leave()
	release()
	w.boot()
	w.eventually("ready", func() bool { return w.show("web").Ready })
	if v := w.show("web"); v.Error != nil {
		t.Errorf("%+v", v.Error)
	}
}

func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("good")
	w.must(w.m.Create(bg, api.CreateVM{Name: "bad", NoStart: true}))
	w.leave()
	corrupt(t, w.l.Database(), "bad")
	w.boot()
	all, err := w.m.List(bg, nil)
	if err != nil || len(all) != 2 {
		t.Fatalf("%v %v", all, err)
	}
	if v := w.show("bad"); v.Status != api.StatusBroken || v.Error == nil {
		t.Errorf("%+v", v)
	}
	if v := w.show("good"); v.Status != api.StatusRunning {
		t.Errorf("%+v", v)
	}
	w.must(w.m.Delete(bg, "bad", false))
	if _, err := w.m.Show(bg, "bad"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("%v", err)
	}
}

// corrupt spoils the record of the VM behind the store's back.
func corrupt(t *testing.T, path, name string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE vms SET record = '{' WHERE name = ?`, name); err != nil {
		t.Fatal(err)
	}
}

// That nothing runs is no fault of a VM that is stopped, whatever it was
// stopped by.
func TestAStoppedVMIsRecoveredInSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("stopped")
	w.must(w.m.Stop(bg, "stopped", api.StopVM{}))
	w.must(w.m.Create(bg, api.CreateVM{Name: "new", NoStart: true}))
	w.f.set("boot", errPanic)
	if op := w.settle(w.m.Create(bg, api.CreateVM{Name: "failed"})); op.Error == nil {
		t.Fatal("the boot did not fail")
	}
	all, err := w.db.VMs(bg)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	for _, rec := range all {
		if err := w.m.recoverVM(bg, rec, ""); err != nil {
			t.Errorf("%s: %v", rec.Name, err)
		}
	}
}

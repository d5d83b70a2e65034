package vm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

var bg = context.Background()

func TestLifecycle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	if v.Status != api.StatusRunning || !v.Ready || v.Accelerator != "tcg" || v.AcceleratorReason == "" || v.StartedAt == nil {
		t.Fatalf("after create: %+v", v)
	}
	if v.Network.Address != "192.168.127.2" {
		t.Errorf("address %q", v.Network.Address)
	}
	op := w.settle(w.m.Start(bg, "web"))
	if op.Status != api.OperationSucceeded || strings.Contains(string(op.Result), `"changed":true`) {
		t.Errorf("second start: %s %s", op.Status, op.Result)
	}
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if v = w.show("web"); v.Status != api.StatusStopped || v.Error != nil || v.StoppedAt == nil || v.Ready {
		t.Fatalf("after stop: %+v", v)
	}
	if _, err := os.Stat(w.l.VM(v.ID).Handle()); err == nil {
		t.Error("handle left after stop")
	}
	op = w.settle(w.m.Stop(bg, "web", api.StopVM{}))
	if op.Status != api.OperationSucceeded || !strings.Contains(string(op.Result), `"changed":false`) {
		t.Errorf("second stop: %s %s", op.Status, op.Result)
	}
	w.must(w.m.Start(bg, "we")) // a prefix
	w.must(w.m.Restart(bg, "web"))
	if v = w.show(v.ID); v.Status != api.StatusRunning {
		t.Fatalf("after restart: %+v", v)
	}
	if _, err := w.m.Delete(bg, "web", false); api.KindOf(err) != api.KindBadState {
		t.Errorf("delete of a running vm: %v", err)
	}
	if v, err := w.m.Kill(bg, "web", api.KillVM{}); err != nil || v.Status != api.StatusStopped || v.Error != nil || !v.Changed {
		t.Fatalf("kill: %+v %v", v, err)
	}
	if v, err := w.m.Kill(bg, "web", api.KillVM{}); err != nil || v.Changed {
		t.Errorf("second kill: %+v %v", v, err)
	}
	if _, err := w.m.Delete(bg, "we", false); api.KindOf(err) != api.KindNotFound {
		t.Errorf("delete by prefix: %v", err)
	}
	w.must(w.m.Delete(bg, "web", false))
	w.nothingLeft()
	if _, err := w.m.Delete(bg, "web", false); api.KindOf(err) != api.KindNotFound {
		t.Errorf("delete of a missing vm: %v", err)
	}
	w.must(w.m.Delete(bg, "web", true))
	w.create("web")
	w.must(w.m.Delete(bg, "web", true))
	w.nothingLeft()
}

func TestNoStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "later", NoStart: true}))
	if v := w.show("later"); v.Status != api.StatusStopped || v.StartedAt != nil {
		t.Fatalf("%+v", v)
	}
	w.must(w.m.Start(bg, "later"))
	if v := w.show("later"); v.Status != api.StatusRunning {
		t.Fatalf("%+v", v)
	}
}

func TestGeneratedNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 5 {
		w.must(w.m.Create(bg, api.CreateVM{NoStart: true}))
	}
	all, err := w.m.List(bg, nil)
	if err != nil || len(all) != 5 {
		t.Fatalf("%v %v", all, err)
	}
	for _, v := range all {
		if checkName(v.Name, "") != nil || !strings.Contains(v.Name, "-") {
			t.Errorf("name %q", v.Name)
		}
	}
}

// Only exact names count: a VM whose name and id begin with longname keeps
// nobody from being longname or longname-sandbox, in either order.
func TestNamesAreExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.m.newRecord(createParams{ID: "longnameid000000", Request: w.m.fill(api.CreateVM{Name: "longname-first"})}, w.im.image(), mustKernel())
	rec.Status = api.StatusStopped
	if err := w.db.InsertVM(bg, rec); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"longname", "longname-sandbox", "longname-first-2", "long"} {
		w.must(w.m.Create(bg, api.CreateVM{Name: name, NoStart: true}))
	}
	for _, name := range []string{"longname", "longname-first", "longname-sandbox", "longnameid000000"} {
		if _, err := w.m.Create(bg, api.CreateVM{Name: name, NoStart: true}); api.KindOf(err) != api.KindExists {
			t.Errorf("second %s: %v", name, err)
		}
	}
	if v := w.show("longname-s"); v.Name != "longname-sandbox" {
		t.Errorf("prefix found %s", v.Name)
	}
	_, err := w.m.Show(bg, "longn")
	if e := api.AsError(err); e == nil || e.Kind != api.KindInvalid || len(e.Candidates) != 4 {
		t.Errorf("ambiguous prefix: %v", err)
	}
	if _, err := w.m.Rename(bg, "longname", api.RenameVM{Name: "longname-sandbox"}); api.KindOf(err) != api.KindExists {
		t.Errorf("rename to a taken name: %v", err)
	}
	if _, err := w.m.Rename(bg, "longname", api.RenameVM{Name: "longname-2"}); err != nil {
		t.Errorf("rename: %v", err)
	}
}

func TestBootFailureKeepsTheVM(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.f.set("boot", errPanic)
	op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web"}))
	if op.Error == nil || op.Error.Kind != api.KindGuest || !strings.Contains(op.Error.Message, "panic") || op.Error.Hint == "" {
		t.Fatalf("%+v", op.Error)
	}
	v := w.show("web")
	if v.Status != api.StatusStopped || v.Error == nil || !strings.Contains(v.Error.Message, "no root") {
		t.Fatalf("%+v", v)
	}
	var log strings.Builder
	if err := w.m.Logs(bg, "web", LogOptions{Tail: -1}, &log); err != nil || !strings.Contains(log.String(), "no root") {
		t.Errorf("logs: %q %v", log.String(), err)
	}
	op = w.settle(w.m.Start(bg, "web"))
	if op.Error == nil || w.show("web").Status != api.StatusStopped {
		t.Errorf("start: %+v", op)
	}
	w.f.set("boot", nil)
	w.must(w.m.Start(bg, "web"))
	if v := w.show("web"); v.Status != api.StatusRunning || v.Error != nil {
		t.Errorf("%+v", v)
	}
}

func TestBootFailureWithAutoRemoveLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, why := range []error{errPanic, errNeverUp} { // the second is no end that the watch sees
		w := newWorld(t)
		w.m.times.ReadyTCG = 50 * time.Millisecond
		w.f.set("boot", why)
		if op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web", AutoRemove: true})); op.Error == nil {
			t.Fatal("no error")
		}
		w.nothingLeft()
	}
}

func TestGuestThatNeverAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.m.times.ReadyTCG = 50 * time.Millisecond
	w.f.set("boot", errNeverUp)
	begin := time.Now()
	op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web"}))
	if op.Error == nil || op.Error.Kind != api.KindTimeout {
		t.Fatalf("%+v", op.Error)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("given up after %s", d)
	}
	if v := w.show("web"); v.Status != api.StatusStopped || w.ks.running() != 0 {
		t.Fatalf("%+v", v)
	}
}

func TestCancelledCreateLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"image", "kernel", "accel", "mkfs", "launch", "booting"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			release := w.f.stall(at)
			defer release()
			op, err := w.m.Create(bg, api.CreateVM{Name: "web"})
			if err != nil {
				t.Fatal(err)
			}
			if at == "booting" {
				w.eventually("boot", func() bool { return w.ks.running() == 1 })
			}
			if err := w.ops.Cancel(op.ID); err != nil {
				t.Fatal(err)
			}
			if op := w.settle(op, nil); op.Status != api.OperationCancelled {
				t.Errorf("%s %v", op.Status, op.Error)
			}
			release()
			w.nothingLeft()
			w.create("web")
		})
	}
}

// Each host operation of a create is made to fail: its error comes through,
// nothing is left, and the next try succeeds.
func TestFaultsOfCreate(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"image", "kernel", "accel", "tool mke2fs", "insert", "mkfs", "initrd", "launch"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.f.set(at, errFault)
			op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web"}))
			if op.Error == nil || !strings.Contains(op.Error.Message, errFault.Error()) {
				t.Fatalf("%+v", op.Error)
			}
			w.nothingLeft()
			w.f.set(at, nil)
			w.create("web")
		})
	}
}

func TestFaultsOfStart(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"accel", "mkfs", "initrd", "launch", "state", "dial"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.m.times.ReadyTCG = 500 * time.Millisecond
			w.must(w.m.Create(bg, api.CreateVM{Name: "web", NoStart: true}))
			w.f.set(at, errFault)
			op := w.settle(w.m.Start(bg, "web"))
			if op.Error == nil {
				t.Fatal("no error")
			}
			v := w.show("web")
			if v.Status != api.StatusStopped || v.Error == nil || w.ks.running() != 0 {
				t.Fatalf("%+v", v)
			}
			left, _ := os.ReadDir(w.l.VM(v.ID).State)
			for _, e := range left {
				if strings.HasSuffix(e.Name(), ".new") {
					t.Errorf("left: %s", e.Name())
				}
			}
			w.f.set(at, nil)
			w.m.times.ReadyTCG = 20 * time.Second
			w.must(w.m.Start(bg, "web"))
			if v := w.show("web"); v.Status != api.StatusRunning || v.Error != nil {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestFaultOfDeleteStaysVisible(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("web")
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	w.f.set("delete row", errFault)
	if op := w.settle(w.m.Delete(bg, "web", false)); op.Error == nil {
		t.Fatal("no error")
	}
	if v := w.show("web"); v.Status != api.StatusBroken || v.Error == nil {
		t.Fatalf("%+v", v)
	}
	w.f.set("delete row", nil)
	w.must(w.m.Delete(bg, "web", false))
	w.nothingLeft()
}

func TestEverythingMissingIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.f.set("tool mke2fs", api.Errorf(api.KindUnavailable, "mke2fs is missing"))
	w.host.free, w.host.mem = 1<<20, 1<<20
	w.f.set("image", errFault) // which would come first, were anything done before
	op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web"}))
	for _, want := range []string{"mke2fs", "of disk", "of memory"} {
		if op.Error == nil || !strings.Contains(op.Error.Message, want) {
			t.Errorf("%q is not in %v", want, op.Error)
		}
	}
	w.nothingLeft()
}

// A VM that never ran may have a disk to grow all the same: of a start that failed.
// Each missing tool is named once.
func TestToolsOfADiskThatGrowsBeforeTheFirstStart(t *testing.T) {
	t.Parallel()
	for _, root := range []string{"overlay", "reflink"} {
		w := newWorld(t)
		w.host.clones = true
		w.must(w.m.Create(bg, api.CreateVM{Name: "web", NoStart: true, RootDisk: root}))
		dir := w.l.VM(w.show("web").ID)
		if err := os.MkdirAll(filepath.Dir(dir.WorkDisk()), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir.WorkDisk(), []byte("small"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.f.set("tool resize2fs", api.Errorf(api.KindUnavailable, "resize2fs is missing"))
		op, err := w.m.Start(bg, "web")
		if err == nil {
			if e := w.settle(op, nil).Error; e != nil {
				err = e
			}
		}
		if api.KindOf(err) != api.KindUnavailable || strings.Count(err.Error(), "resize2fs is") != 1 {
			t.Errorf("%s: %v", root, err)
		}
	}
}

// What ends a machine without our asking is seen and told within a second.
func TestObservedEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(k *fakeKeeper)
		want string
	}{
		{"power-off", func(k *fakeKeeper) { k.exit(vmm.Exit{Reason: vmm.ReasonPowerOff, At: time.Now()}) }, "powered itself off"},
		{"panic", func(k *fakeKeeper) { k.exit(vmm.Exit{Reason: vmm.ReasonPanic, Detail: "oops", At: time.Now()}) }, "panicked: oops"},
		{"vmm", func(k *fakeKeeper) {
			k.exit(vmm.Exit{Reason: vmm.ReasonCrashed, Detail: "signal: killed", At: time.Now()})
		}, "vmm crashed"},
		{"keeper", func(k *fakeKeeper) { k.die() }, "keeper died"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.create("web")
			tt.end(w.ks.get(v.ID))
			begin := time.Now()
			w.eventually("stopped", func() bool { return w.show("web").Status == api.StatusStopped })
			if d := time.Since(begin); d > time.Second {
				t.Errorf("seen after %s", d)
			}
			if v := w.show("web"); v.Error == nil || !strings.Contains(v.Error.Message, tt.want) || v.StoppedAt == nil {
				t.Errorf("%+v", v.Error)
			}
			w.must(w.m.Start(bg, "web"))
		})
	}
}

func TestStopOfADeafGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("web")
	release := w.f.stall("shutdown")
	defer release()
	begin := time.Now()
	w.must(w.m.Stop(bg, "web", api.StopVM{TimeoutMS: 100}))
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("stopped after %s", d)
	}
	if v := w.show("web"); v.Status != api.StatusStopped || v.Error == nil || !strings.Contains(v.Error.Message, "was killed") {
		t.Fatalf("%+v", v)
	}
}

func TestStopWithoutAnAgentPressesTheButton(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("web")
	w.f.set("dial", errFault)
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if v := w.show("web"); v.Status != api.StatusStopped || v.Error != nil {
		t.Fatalf("%+v", v)
	}
}

func TestKillWhileStarting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", NoStart: true}))
	release := w.f.stall("booting")
	defer release()
	op, err := w.m.Start(bg, "web")
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("starting", func() bool { return w.show("web").Status == api.StatusStarting && w.ks.running() == 1 })
	if _, err := w.m.Delete(bg, "web", false); api.KindOf(err) != api.KindBadState {
		t.Errorf("delete while starting: %v", err)
	}
	again, err := w.m.Start(bg, "web")
	if err != nil || again.ID != op.ID {
		t.Errorf("a second start does not join: %v %v", again, err)
	}
	if v, err := w.m.Kill(bg, "web", api.KillVM{}); err != nil || v.Status != api.StatusStopped {
		t.Errorf("kill: %+v %v", v, err)
	}
	if op := w.settle(op, nil); op.Error == nil {
		t.Error("the start succeeded")
	}
}

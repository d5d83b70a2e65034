package vm

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
)

// fakeSnapshots has the devices of VMs by their ids. A device stays until it is
// released, as if nothing marked it.
type fakeSnapshots struct {
	f *faults

	mu      sync.Mutex
	devices map[string]bool
	held    int // by us
	opened  int
	none    error  // why there are none here
	damaged string // what is wrong with the files
}

func (s *fakeSnapshots) Check() error                  { return s.none }
func (s *fakeSnapshots) CheckFolder(string) error      { return nil }
func (s *fakeSnapshots) ChangesSize(bytes int64) int64 { return bytes + bytes/8 }
func (s *fakeSnapshots) Damage(string) (string, error) { return s.damaged, nil }
func (s *fakeSnapshots) MakeChanges(p string, n int64) error { // half-made on a fault
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		return err
	}
	if err := s.f.at("lay aside"); err != nil {
		return err
	}
	return os.Truncate(p, s.ChangesSize(n))
}

func (s *fakeSnapshots) GrowChanges(p string, n int64, used bool) error {
	if err := s.f.at("lay aside"); err != nil || used {
		return err
	}
	return os.Truncate(p, s.ChangesSize(n))
}

type closer func()

func (c closer) Close() error { c(); return nil }

func (s *fakeSnapshots) Open(ctx context.Context, id, _, _ string, _ int64) (string, io.Closer, error) {
	if err := s.f.atCtx(ctx, "map"); err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices[id] = true
	s.held++
	s.opened++
	return "/dev/of-" + id, closer(func() { s.mu.Lock(); defer s.mu.Unlock(); s.held-- }), nil
}

func (s *fakeSnapshots) Release(_ context.Context, id string) error {
	if err := s.f.at("unmap"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.devices, id)
	return nil
}

// none checks that no device is there, and none held.
func (w *world) noDevices(when string) {
	w.t.Helper()
	w.snaps.mu.Lock()
	defer w.snaps.mu.Unlock()
	if len(w.snaps.devices) != 0 || w.snaps.held != 0 {
		w.t.Errorf("%s: %v are left, %d held", when, w.snaps.devices, w.snaps.held)
	}
}

// The device of a VM is there while it runs, and goes with every end.
func TestTheDeviceOfASnapshotLivesAsLongAsItsVM(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "dm-snapshot"}))
	v := w.show("web")
	if v.RootDisk != "dm-snapshot" || v.RootDiskReason != "asked for" {
		t.Errorf("%+v", v)
	}
	runs := func(when string) {
		t.Helper()
		w.snaps.mu.Lock()
		defer w.snaps.mu.Unlock()
		if !w.snaps.devices[v.ID] || w.snaps.held != 0 {
			t.Errorf("%s: %v, %d held", when, w.snaps.devices, w.snaps.held)
		}
	}
	runs("created")
	for name, end := range map[string]func(){
		"stop": func() { w.must(w.m.Stop(bg, "web", api.StopVM{})) },
		"kill": func() { _, _ = w.m.Kill(bg, "web", api.KillVM{}) },
		"its keeper dies": func() {
			w.ks.killAll()
			w.eventually("seen", func() bool { return w.show("web").Status == api.StatusStopped })
		},
	} {
		end()
		w.noDevices(name)
		w.must(w.m.Start(bg, "web"))
		runs("started after " + name)
	}
	w.must(w.m.Restart(bg, "web"))
	runs("restarted")
	w.must(w.m.Delete(bg, "web", true))
	w.noDevices("deleted")
}

// The guest is given the device, and the room of its changes is all there is.
func TestTheDisksOfASnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "dm-snapshot"}))
	rec, err := w.db.VM(bg, w.show("web").ID)
	if err != nil {
		t.Fatal(err)
	}
	dir := w.l.VM(rec.ID)
	spec := w.m.spec(rec, dir, w.im.root, Choice{})
	hold, err := w.m.rootOf(rec.RootDisk).open(bg, rec.ID, w.im.root, dir.RootChanges(), rec.SystemOverlayBytes, spec.Disks)
	if err != nil {
		t.Fatal(err)
	}
	hold.Close()
	want := []vmm.Disk{
		{Path: "/dev/of-" + rec.ID, Serial: guestapi.RoleRoot, Block: true},
		{Path: dir.WorkDisk(), Serial: guestapi.RoleWork},
		{Path: w.l.Kernel("k1").Modules(), Serial: guestapi.RoleModules, ReadOnly: true},
	}
	if diff := cmp.Diff(want, spec.Disks); diff != "" {
		t.Error(diff)
	}
	if n := size(dir.RootChanges()); n != w.snaps.ChangesSize(rec.SystemOverlayBytes) {
		t.Errorf("%d bytes laid aside", n)
	}
}

// A fault at each step leaves no device, and no VM where it was a create; then it
// works.
func TestFaultsOfASnapshot(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"lay aside", "map", "own", "mkfs", "initrd", "launch", "state"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "dm-snapshot", NoStart: true}))
			step := at
			if at == "own" {
				step = "own /dev/of-" + w.show("web").ID
			}
			w.f.set(step, errFault)
			if op := w.settle(w.m.Start(bg, "web")); op.Error == nil {
				t.Fatal("expected the fault")
			}
			w.noDevices("start")
			if at != "own" {
				if op := w.settle(w.m.Create(bg, api.CreateVM{Name: "other", RootDisk: "dm-snapshot", AutoRemove: true})); op.Error == nil {
					t.Fatal("expected the fault")
				}
				w.noDevices("create")
				if all, err := w.m.List(bg, nil); err != nil || len(all) != 1 {
					t.Errorf("%v, %v", all, err)
				}
			}
			w.f.set(step, nil)
			w.must(w.m.Start(bg, "web"))
			w.must(w.m.Stop(bg, "web", api.StopVM{}))
			w.noDevices("stop")
		})
	}
}

// The next daemon lets go of the devices of VMs that no longer run, and of no
// others.
func TestTheNextDaemonReleasesSnapshots(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"on", "off"} {
		w.must(w.m.Create(bg, api.CreateVM{Name: name, RootDisk: "dm-snapshot"}))
	}
	on, off := w.show("on"), w.show("off")
	w.must(w.m.Stop(bg, "off", api.StopVM{}))
	w.leave()
	w.snaps.devices[off.ID] = true // of a start that the daemon's death cut off
	w.snaps.devices["another's"] = true
	w.boot()
	if diff := cmp.Diff(map[string]bool{on.ID: true, "another's": true}, w.snaps.devices); diff != "" {
		t.Error(diff)
	}
	delete(w.snaps.devices, "another's")
	w.must(w.m.Stop(bg, "on", api.StopVM{}))
	w.noDevices("stop of an adopted one")
}

// A device that does not go is told of: a deletion keeps the VM, broken.
func TestADeviceThatDoesNotGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "dm-snapshot"}))
	w.f.set("unmap", errFault)
	if op := w.settle(w.m.Delete(bg, "web", true)); op.Error == nil {
		t.Fatal("expected the fault")
	}
	if v := w.show("web"); v.Status != api.StatusBroken || v.Error == nil {
		t.Errorf("%+v", v)
	}
	w.f.set("unmap", nil)
	w.must(w.m.Delete(bg, "web", true))
	w.noDevices("deleted")
}

// Room for a larger root is taken at once, or the wish is refused and nothing
// changes; it grows when nobody uses it.
func TestASnapshotGrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "dm-snapshot"}))
	path := w.l.VM(w.show("web").ID).RootChanges()
	two := int64(2 << 30)
	w.f.set("lay aside", errFault)
	if _, err := w.m.Set(bg, "web", api.SetVM{SystemOverlayBytes: &two}); err == nil {
		t.Error("expected the fault")
	}
	if v := w.show("web"); v.SystemOverlayBytes != 1<<30 || len(v.Pending) != 0 {
		t.Errorf("%+v", v)
	}
	w.f.set("lay aside", nil)
	if v, err := w.m.Set(bg, "web", api.SetVM{SystemOverlayBytes: &two}); err != nil || !cmp.Equal(v.Pending, []string{"system_overlay_bytes"}) {
		t.Errorf("%v, %v", v.Pending, err)
	}
	w.must(w.m.Restart(bg, "web"))
	if v := w.show("web"); len(v.Pending) != 0 || size(path) != w.snaps.ChangesSize(two) {
		t.Errorf("%v pending, %d bytes", v.Pending, size(path))
	}
}

func TestASnapshotThatCannotBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.snaps.none = api.Errorf(api.KindUnsupported, "cannot use device-mapper: that takes root")
	op := w.settle(w.m.Create(bg, api.CreateVM{RootDisk: "dm-snapshot"}))
	if e := op.Error; e == nil || e.Kind != api.KindUnsupported || !strings.Contains(e.Message, "takes root") || e.Hint != "banger vm create --root-disk overlay" {
		t.Errorf("%+v", e)
	}
	w.snaps.none, w.host.free = nil, 1<<30
	op = w.settle(w.m.Create(bg, api.CreateVM{RootDisk: "dm-snapshot"}))
	if e := op.Error; e == nil || e.Kind != api.KindNoSpace || !strings.Contains(e.Message, "1GiB are free") || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	if all, err := w.m.List(bg, nil); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	// One that the kernel gave up is not started from.
	w.host.free = 64 << 30
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "dm-snapshot"}))
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	w.snaps.damaged = "is a snapshot that the kernel has given up"
	if _, err := w.m.Start(bg, "web"); api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), "root.cow is a snapshot that the kernel has given up") {
		t.Error(err)
	}
}

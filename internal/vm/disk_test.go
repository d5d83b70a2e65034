package vm

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

// A disk that is lost is never made anew: the start fails and names the file,
// the VM shows why, the others run on, and it starts when the file is back.
func TestALostDiskIsNotReplaced(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		harm  func(path string) error
		want  string
		shown bool // by a list, which looks at no file system
	}{
		"missing":  {func(string) error { return nil }, "is missing", true},
		"empty":    {func(p string) error { return os.WriteFile(p, nil, 0o600) }, "is cut off at 0B", true},
		"a folder": {func(p string) error { return os.Mkdir(p, 0o700) }, "is no regular file", true},
		"a link":   {func(p string) error { return os.Symlink(p+".kept", p) }, "is no regular file", true},
		"cut off": {func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 512<<20))
		}, "is cut off at 512MiB of 1GiB", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.create("fine")
			dir := w.l.VM(w.create("torn").ID)
			w.must(w.m.Stop(bg, "torn", api.StopVM{}))
			w.host.spans = 1 << 30
			for _, path := range []string{dir.SystemDisk(), dir.WorkDisk()} {
				if err := errors.Join(os.Rename(path, path+".kept"), tt.harm(path)); err != nil {
					t.Fatal(err)
				}
				before, _ := os.Lstat(path)
				big := int64(2 << 30)
				for verb, do := range map[string]func() error{
					"start":   func() error { _, err := w.m.Start(bg, "torn"); return err },
					"restart": func() error { _, err := w.m.Restart(bg, "torn"); return err },
					"set":     func() error { _, err := w.m.Set(bg, "torn", api.SetVM{DiskBytes: &big}); return err },
				} {
					if err := do(); api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), path+" "+tt.want) {
						t.Errorf("%s: %v", verb, err)
					}
				}
				if after, err := os.Lstat(path); before == nil && !errors.Is(err, fs.ErrNotExist) ||
					before != nil && (err != nil || after.Size() != before.Size()) {
					t.Errorf("%s was changed: %v %v", path, after, err)
				}
				v := w.show("torn")
				if v.Status != api.StatusStopped || tt.shown && (v.Error == nil || !strings.Contains(v.Error.Message, path)) {
					t.Errorf("%s: %v", v.Status, v.Error)
				}
				if v := w.show("fine"); v.Status != api.StatusRunning || v.Error != nil {
					t.Errorf("the other one is %s: %v", v.Status, v.Error)
				}
				if err := errors.Join(os.RemoveAll(path), os.Rename(path+".kept", path)); err != nil {
					t.Fatal(err)
				}
			}
			w.must(w.m.Start(bg, "torn"))
			if v := w.show("torn"); v.Error != nil {
				t.Error(v.Error)
			}
		})
	}
}

// What a start finds amiss only when it makes the disks is no reason either.
func TestALostDiskIsNotMadeLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := w.l.VM(w.create("torn").ID)
	w.must(w.m.Stop(bg, "torn", api.StopVM{}))
	release := w.f.stall("accel")
	op, err := w.m.Start(bg, "torn")
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("it has begun", func() bool { return w.show("torn").Status == api.StatusStarting })
	if err := os.Remove(dir.WorkDisk()); err != nil {
		t.Fatal(err)
	}
	release()
	if op = w.settle(op, nil); op.Error == nil || !strings.Contains(op.Error.Message, dir.WorkDisk()) {
		t.Errorf("%+v", op.Error)
	}
	if _, err := os.Lstat(dir.WorkDisk()); err == nil {
		t.Error("a new disk was made")
	}
}

// A VM that never ran gets its disks at its first start, also when an attempt
// at it failed half-way.
func TestTheFirstStartMakesTheDisks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.m.Create(bg, api.CreateVM{Name: "new", NoStart: true}))
	if v := w.show("new"); v.Error != nil {
		t.Error(v.Error)
	}
	w.f.set("mkfs", errFault)
	if op := w.settle(w.m.Start(bg, "new")); op.Error == nil {
		t.Fatal("expected the fault")
	}
	w.f.set("mkfs", nil)
	w.must(w.m.Start(bg, "new"))
}

// A guest that stands still because the host's disk is full says so, until it
// goes on; it can be stopped all the while.
func TestAGuestThatWaitsForRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create("web").ID
	for range 2 {
		w.ks.get(id).waits <- "no space is left"
		w.eventually("it is shown", func() bool { return w.show("web").Error != nil })
		v := w.show("web")
		if v.Status != api.StatusRunning || v.Error.Kind != api.KindNoSpace || !strings.Contains(v.Error.Message, "no space is left") || v.Error.Hint == "" {
			t.Errorf("%s: %+v", v.Status, v.Error)
		}
		w.ks.get(id).waits <- ""
		w.eventually("it goes on", func() bool { return w.show("web").Error == nil })
	}
	w.ks.get(id).waits <- "no space is left"
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if v := w.show("web"); v.Status != api.StatusStopped || v.Error != nil {
		t.Errorf("%s: %v", v.Status, v.Error)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := strings.Join(w.events, "\n"); strings.Count(all, "vm.waits web no space is left") < 2 || strings.Count(all, "vm.goes-on") != 2 {
		t.Error(all)
	}
}

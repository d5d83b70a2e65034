package vm

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

func TestTheRootDiskAndItsReasonAreShown(t *testing.T) {
	t.Parallel()
	for asked, want := range map[string][2]string{
		"":        {"overlay", "the default: it takes no privilege and nothing of the host"},
		"auto":    {"overlay", "the default: it takes no privilege and nothing of the host"},
		"overlay": {"overlay", "asked for"},
		"reflink": {"reflink", "asked for"},
	} {
		t.Run(asked, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.host.clones = true // auto takes no notice of it
			w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: asked}))
			v := w.show("web")
			if diff := cmp.Diff(want, [2]string{v.RootDisk, v.RootDiskReason}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What the guest finds of a root of its own: one disk it may write, no system
// disk.
func TestTheDisksOfARootOfItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host.clones = true
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "reflink"}))
	rec, err := w.db.VM(bg, w.show("web").ID)
	if err != nil {
		t.Fatal(err)
	}
	dir := w.l.VM(rec.ID)
	spec := w.m.spec(rec, dir, w.im.root, Choice{})
	want := []vmm.Disk{
		{Path: dir.RootDisk(), Serial: guestapi.RoleRoot},
		{Path: dir.WorkDisk(), Serial: guestapi.RoleWork},
		{Path: w.l.Kernel("k1").Modules(), Serial: guestapi.RoleModules, ReadOnly: true},
	}
	if diff := cmp.Diff(want, spec.Disks); diff != "" {
		t.Error(diff)
	}
	if c, err := w.m.guestConfig(bg, rec, spec, ""); err != nil || !c.OwnRoot {
		t.Errorf("%+v, %v", c, err)
	}
	if size(dir.RootDisk()) != rec.SystemOverlayBytes || size(dir.SystemDisk()) != 0 {
		t.Errorf("%d and %d bytes", size(dir.RootDisk()), size(dir.SystemDisk()))
	}
	rec.RootDisk = rootOverlay
	if c, err := w.m.guestConfig(bg, rec, spec, ""); err != nil || c.OwnRoot {
		t.Errorf("%+v, %v", c, err)
	}
}

// A host that cannot, and an image that does not fit, are told before anything
// is made.
func TestARootDiskThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		clones bool
		image  int64
		kind   api.Kind
		want   string
	}{
		"no reflink":      {false, 1, api.KindUnsupported, "cannot give a vm the root disk reflink: cannot clone"},
		"too large":       {true, 2 << 30, api.KindInvalid, "the image takes 2GiB, more than the 1GiB of its disk"},
		"no image either": {true, -1, api.KindBadState, "its files are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.host.clones = tt.clones
			if err := os.Truncate(w.im.root, max(tt.image, 0)); err != nil {
				t.Fatal(err)
			}
			if tt.image < 0 {
				if err := os.Remove(w.im.root); err != nil {
					t.Fatal(err)
				}
			}
			for _, noStart := range []bool{false, true} {
				op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "reflink", NoStart: noStart}))
				if op.Error == nil || op.Error.Kind != tt.kind || !strings.Contains(op.Error.Message, tt.want) || op.Error.Hint == "" && tt.kind != api.KindBadState {
					t.Errorf("%+v", op.Error)
				}
			}
			if all, err := w.m.List(bg, nil); err != nil || len(all) != 0 {
				t.Errorf("%v, %v are left", all, err)
			}
		})
	}
}

// A VM whose root was made of one image keeps that image, unless nothing was made yet.
func TestARootOfItsOwnKeepsItsImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host.clones = true
	other := w.im.image()
	other.ID, other.Name, other.Digest = "img2", "other", "sha256:2"
	w.im.more = map[string]store.Image{"other": other}
	if err := w.db.PublishImage(bg, other, nil); err != nil {
		t.Fatal(err)
	}
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "reflink", NoStart: true}))
	w.f.set("clone", errFault)
	if op := w.settle(w.m.Start(bg, "web")); op.Error == nil {
		t.Fatal("expected the fault")
	}
	if _, err := w.m.Set(bg, "web", api.SetVM{Image: "other"}); err != nil {
		t.Fatal(err)
	}
	w.f.set("clone", nil)
	// What a start that failed later left is of the image of before.
	path := w.l.VM(w.show("web").ID).RootDisk()
	if err := os.WriteFile(path, []byte("of the first image"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(w.m.Start(bg, "web"))
	if w.host.cloned != 1 || size(path) != 1<<30 {
		t.Errorf("%d clones, %d bytes", w.host.cloned, size(path))
	}
	for range 2 { // running, and stopped
		_, err := w.m.Set(bg, "web", api.SetVM{Image: "debian-bookworm"})
		if e := api.AsError(err); e.Kind != api.KindUnsupported || !strings.Contains(e.Message, "what was changed in it would be lost") || e.Hint == "" {
			t.Errorf("%+v", e)
		}
		w.must(w.m.Stop(bg, "web", api.StopVM{}))
	}
	if v := w.show("web"); v.Image.Name != "other" {
		t.Errorf("the image is %s", v.Image.Name)
	}
}

// A root of its own grows where nobody uses it: at once, or at the next start.
func TestARootOfItsOwnGrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host.clones, w.ks.online = true, true // the VMM could, the guest's kernel not
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "reflink"}))
	path := w.l.VM(w.show("web").ID).RootDisk()
	two, three := int64(2<<30), int64(3<<30)
	v, err := w.m.Set(bg, "web", api.SetVM{SystemOverlayBytes: &two})
	if err != nil || !cmp.Equal(v.Pending, []string{"system_overlay_bytes"}) || size(path) != 1<<30 {
		t.Errorf("%v pending, %d bytes, %v", v.Pending, size(path), err)
	}
	w.must(w.m.Restart(bg, "web"))
	if v := w.show("web"); len(v.Pending) != 0 || size(path) != two {
		t.Errorf("%v pending, %d bytes", v.Pending, size(path))
	}
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if _, err := w.m.Set(bg, "web", api.SetVM{SystemOverlayBytes: &three}); err != nil || size(path) != three {
		t.Errorf("%d bytes, %v", size(path), err)
	}
	if diff := cmp.Diff([]string{"root.ext4", "root.ext4"}, w.host.grown); diff != "" {
		t.Error(diff)
	}
}

// The loss of a root disk is never hidden by a new one, and deleting frees it.
func TestALostRootDiskIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host.clones = true
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", RootDisk: "reflink"}))
	path := w.l.VM(w.show("web").ID).RootDisk()
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if err := os.Rename(path, path+".kept"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.Start(bg, "web"); api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), path+" is missing") {
		t.Error(err)
	}
	if v := w.show("web"); v.Error == nil || !strings.Contains(v.Error.Message, path) {
		t.Errorf("%+v", v.Error)
	}
	if w.host.cloned != 1 {
		t.Errorf("%d clones", w.host.cloned)
	}
}

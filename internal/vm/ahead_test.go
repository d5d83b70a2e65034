package vm

import (
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/store"
)

// An image that has to be pulled and its kernel are pulled at once when the
// catalog knows it; of the two the image's progress is shown, and an error of
// either is the create's.
func TestImageAndKernelArePulledAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.im.ahead = "k"
	image, kernel := w.f.stall("image"), w.f.stall("kernel k")
	op, err := w.m.Create(bg, api.CreateVM{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	waiting := func(name string) func() bool {
		return func() bool { return w.f.waiting(name) }
	}
	w.eventually("the image is waited for", waiting("image"))
	w.eventually("and the kernel", waiting("kernel k"))
	if now, err := w.ops.Get(bg, op.ID); err != nil || now.Stage != "pulling debian-bookworm" {
		t.Errorf("stage %q %v", now.Stage, err)
	}
	kernel()
	image()
	w.must(op, nil)
	w.must(w.m.Delete(bg, "web", true))

	for _, what := range []string{"image", "kernel k"} {
		w.f.set(what, errFault)
		if op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web"})); op.Error == nil {
			t.Errorf("%s failed, the create did not", what)
		}
		w.f.set(what, nil)
		w.nothingLeft()
	}
	// What was known ahead is only a guess: the image says which, and a kernel
	// asked for by name is the one.
	w.im.ahead = "other"
	w.f.set("kernel k", errFault)
	if op := w.settle(w.m.Create(bg, api.CreateVM{Name: "web"})); op.Error == nil {
		t.Error("the image's own kernel was not asked for")
	}
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", Kernel: "mine"}))
	w.must(w.m.Delete(bg, "web", true))
	// A pull that is not allowed is not begun ahead.
	w.f.set("kernel k", nil)
	w.f.set("kernel other", errFault)
	w.must(w.m.Create(bg, api.CreateVM{Name: "web", Pull: "never"}))
}

// What the guest flushes reaches the host's disk, but for machines that are
// gone with the host anyway.
func TestOnlyFleetingMachinesSkipFlushes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, remove := range []bool{false, true} {
		spec := w.m.spec(store.VM{AutoRemove: remove}, layout.VMDir{}, "root", Choice{})
		for _, d := range spec.Disks {
			if want := remove && !d.ReadOnly; d.Fleeting != want {
				t.Errorf("auto-remove %v: disk %s: %v", remove, d.Serial, d.Fleeting)
			}
		}
	}
}

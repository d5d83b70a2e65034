package vm

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// fakeTemplates has the template, if it has one, for every machine.
type fakeTemplates struct {
	mu   sync.Mutex
	has  *vmm.Template
	said []string // Booted and Bad, with what they were told
}

func (f *fakeTemplates) orNone() Templates {
	if f == nil {
		return nil
	}
	return f
}

func (f *fakeTemplates) For(context.Context, string, vmm.Spec) *vmm.Template {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.has
}

func (f *fakeTemplates) Booted(_ context.Context, driver string, spec vmm.Spec) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, "booted "+driver+" "+spec.ID)
	f.has = &vmm.Template{Memory: "/m", State: "/s"}
}

func (f *fakeTemplates) Bad(t vmm.Template, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, "bad "+t.Memory+": "+why.Error())
	f.has = nil
}

func (f *fakeTemplates) words() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := f.said
	f.said = nil
	return said
}

// The first machine boots, the next goes on from what was made of it, told who it
// is; one that does not come up from it takes the template away.
func TestTemplates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.leave()
	w.templates = &fakeTemplates{}
	w.boot()

	a := w.create("a")
	if s := w.ks.get(a.ID).spec; s.Template != nil || s.Wake != nil {
		t.Errorf("the first goes on from %+v", s.Template)
	}
	if got := w.templates.words(); !slices.Equal(got, []string{"booted fake " + a.ID}) {
		t.Errorf("said %q", got)
	}
	b := w.create("b")
	s := w.ks.get(b.ID).spec
	if s.Template == nil || s.Wake == nil || s.Wake.Config.Hostname != "b" || s.Wake.Config.VMID != b.ID || len(s.Wake.Config.Seed) == 0 || s.Initrd == "" {
		t.Errorf("the second is started with %+v", s)
	}
	if got := w.templates.words(); len(got) > 0 {
		t.Errorf("said %q", got)
	}

	// It booted after all.
	w.ks.noTemplate("it is of another machine")
	w.create("c")
	if got := w.templates.words(); len(got) != 2 || got[0] != "bad /m: it is of another machine" || !strings.HasPrefix(got[1], "booted ") {
		t.Errorf("said %q", got)
	}
	w.ks.noTemplate("")

	w.f.set("boot", errPanic)
	op := w.settle(w.m.Create(bg, api.CreateVM{Name: "d"}))
	if got := w.templates.words(); op.Status != api.OperationFailed || len(got) != 1 || !strings.Contains(got[0], "no root") {
		t.Errorf("%s, said %q", op.Status, got)
	}
}

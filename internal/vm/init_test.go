package vm

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/store"
)

func TestChooseInit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		asked  string
		config api.ImageConfig
		init   string
		argv   []string
	}{
		"nothing said":         {"auto", api.ImageConfig{}, "agent", nil},
		"a command":            {"auto", api.ImageConfig{Cmd: []string{"/bin/bash"}}, "agent", nil},
		"init as command":      {"auto", api.ImageConfig{Cmd: []string{"/sbin/init"}}, "image", []string{"/sbin/init"}},
		"systemd as entry":     {"auto", api.ImageConfig{Entrypoint: []string{"/lib/systemd/systemd"}, Cmd: []string{"--log-level=info"}}, "image", []string{"/lib/systemd/systemd", "--log-level=info"}},
		"through an entry":     {"auto", api.ImageConfig{Entrypoint: []string{"/entry.sh"}, Cmd: []string{"/sbin/init"}}, "agent", nil},
		"a name elsewhere":     {"auto", api.ImageConfig{Cmd: []string{"/opt/app/init"}}, "agent", nil},
		"no path":              {"auto", api.ImageConfig{Cmd: []string{"init"}}, "agent", nil},
		"asked for though":     {"image", api.ImageConfig{Cmd: []string{"/bin/sh"}}, "image", nil},
		"not asked for though": {"agent", api.ImageConfig{Cmd: []string{"/sbin/init"}}, "agent", []string{"/sbin/init"}},
	} {
		init, reason := chooseInit(c.asked, c.config)
		if init != c.init || reason == "" {
			t.Errorf("%s: %s, %s", name, init, reason)
		}
		if d := cmp.Diff(c.argv, ownInit(c.config)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// An image's init waits for no login on the console, which is only a log.
func TestNoLoginOnTheConsole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for init, want := range map[string][]string{initAgent: nil, initImage: {"systemd.getty_auto=0"}} {
		spec := w.m.spec(store.VM{Init: init}, layout.VMDir{}, "root", Choice{})
		if d := cmp.Diff(want, spec.Cmdline); d != "" {
			t.Errorf("%s: %s", init, d)
		}
	}
}

func TestThroughEntrypoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	with, without := w.im.image(), w.im.image()
	with.ID, with.Name, with.Config = "with", "with", api.ImageConfig{Entrypoint: []string{"/entry", "-x"}, Cmd: []string{"all"}}
	without.ID, without.Name, without.Config = "without", "without", api.ImageConfig{Cmd: []string{"all"}}
	for _, i := range []store.Image{with, without} {
		if err := w.db.PublishImage(bg, i, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		vm   store.VM
		argv []string
		want []string
		kind api.Kind
	}{
		"none":               {store.VM{ImageID: "with"}, []string{"ls"}, []string{"ls"}, ""},
		"another":            {store.VM{ImageID: "with", Entrypoint: []string{"/e"}}, []string{"ls"}, []string{"/e", "ls"}, ""},
		"another alone":      {store.VM{ImageID: "with", Entrypoint: []string{"/e"}}, nil, []string{"/e"}, ""},
		"the image's":        {store.VM{ImageID: "with", ImageEntrypoint: true}, []string{"ls"}, []string{"/entry", "-x", "ls"}, ""},
		"the image's alone":  {store.VM{ImageID: "with", ImageEntrypoint: true}, nil, []string{"/entry", "-x", "all"}, ""},
		"the image has none": {store.VM{ImageID: "without", ImageEntrypoint: true}, []string{"ls"}, nil, api.KindInvalid},
	} {
		got, err := w.m.throughEntrypoint(bg, c.vm, c.argv)
		if d := cmp.Diff(c.want, got); d != "" || c.kind != "" && api.KindOf(err) != c.kind || c.kind == "" && err != nil {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
}

func TestSetImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.im.image()
	other.ID, other.Name, other.Digest, other.Kernel = "img2", "sysd", "sha256:2", "k2"
	other.Config = api.ImageConfig{Cmd: []string{"/sbin/init"}}
	if err := w.db.PublishImage(bg, other, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.db.PublishKernel(bg, store.Kernel{ID: "k2", Name: "k2", Version: "6.2"}, nil); err != nil {
		t.Fatal(err)
	}
	w.im.more = map[string]store.Image{"sysd": other}
	w.create("web")
	for _, changed := range []bool{true, false} {
		got, err := w.m.Set(bg, "web", api.SetVM{Image: "sysd"})
		if err != nil || got.Image != (api.ImageRef{Name: "sysd", Digest: "sha256:2"}) || got.Init != "image" || got.Changed != changed {
			t.Fatalf("%+v %v", got, err)
		}
		if d := cmp.Diff([]string{"image"}, got.Pending); d != "" {
			t.Error(d)
		}
	}
	if _, err := w.m.Set(bg, "web", api.SetVM{Image: "no-such"}); api.KindOf(err) != api.KindNotFound {
		t.Errorf("got %v", err)
	}
	if _, err := w.m.Set(bg, "web", api.SetVM{Image: "sysd", Pull: "x"}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("got %v", err)
	}
	rec, err := w.db.VMs(bg)
	if err != nil || len(rec) != 1 || rec[0].KernelName != "k2" {
		t.Fatalf("the image's own kernel: %+v %v", rec, err)
	}
	// With the kernel of its owner's choice.
	if _, err := w.db.UpdateVM(bg, rec[0].ID, func(v *store.VM) error { v.KernelName = "mine"; return nil }); err != nil {
		t.Fatal(err)
	}
	if got, err := w.m.Set(bg, "web", api.SetVM{Image: "debian-bookworm"}); err != nil || got.Kernel.Name != "k" || got.Init != "agent" || len(got.Pending) > 0 {
		t.Errorf("%+v %v", got, err)
	}
}

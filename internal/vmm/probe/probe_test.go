package probe

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/fake"
)

// talker is a driver whose guest behaves as the test wants.
type talker struct {
	*fake.Driver
	starts int
	nic    *vmm.NIC // of the last guest
	say    string
	end    vmm.Reason // empty: it lives on
	err    error
}

func (d *talker) Start(ctx context.Context, spec vmm.Spec, console io.Writer) (vmm.Machine, error) {
	d.starts++
	d.nic = spec.Network
	if d.err != nil {
		return nil, d.err
	}
	if b, err := os.ReadFile(spec.Initrd); err != nil || string(b) != "initrd" {
		return nil, errors.New("no initramfs")
	}
	m, err := d.Driver.Start(ctx, spec, io.Discard)
	if err != nil {
		return nil, err
	}
	console.Write([]byte(d.say))
	if d.end != "" {
		m.(*fake.Machine).End(d.end, "")
	}
	return m, nil
}

func newTalker() *talker {
	return &talker{Driver: fake.New(fake.Options{}, slog.New(slog.DiscardHandler))}
}

// options has a device that opens.
func options(t *testing.T, d vmm.Driver) Options {
	dir := t.TempDir()
	device := filepath.Join(dir, "kvm")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return Options{
		Driver: d, Kernel: "/vmlinux", Device: device, HostBoot: "boot 1", CachePath: filepath.Join(dir, "cache", "probe.json"),
		Initrd:      func(_ context.Context, path string) error { return os.WriteFile(path, []byte("initrd"), 0o600) },
		FirstOutput: 200 * time.Millisecond, Total: 500 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*talker)
		want   vmm.Accelerator
		reason string
	}{
		"userspace": {func(d *talker) { d.say = "Linux\n" + guestapi.ProbeReply + "\n"; d.end = vmm.ReasonReset }, vmm.KVM, "a guest booted"},
		"alive":     {func(d *talker) { d.say = guestapi.ProbeReply }, vmm.KVM, "a guest booted"},
		"silent":    {func(*talker) {}, vmm.TCG, "said nothing within"},
		"hangs":     {func(d *talker) { d.say = "Linux\n" }, vmm.TCG, "did not reach its userspace"},
		"dies":      {func(d *talker) { d.say = "Linux\n"; d.end = vmm.ReasonCrashed }, vmm.TCG, "ended before its userspace"},
		"aborts":    {func(d *talker) { d.err = errors.New("failed to set MSR") }, vmm.TCG, "failed to set MSR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newTalker()
			c.change(d)
			o := options(t, d)
			for range 2 { // the second time from the cache
				got, reason, err := Run(t.Context(), o)
				if err != nil || got != c.want || !strings.Contains(reason, c.reason) {
					t.Errorf("got %s, %q, %v", got, reason, err)
				}
			}
			if d.starts != 1 {
				t.Errorf("%d guests were started", d.starts)
			}
			for _, m := range d.Machines() {
				select {
				case <-m.Done():
				default:
					t.Error("the guest lives on")
				}
			}
			// Another boot of the host is another question; so is a broken cache.
			o.HostBoot = "boot 2"
			Run(t.Context(), o)
			os.WriteFile(o.CachePath, []byte("{"), 0o600)
			if got, _, err := Run(t.Context(), o); err != nil || got != c.want || d.starts != 3 {
				t.Errorf("after a broken cache: %s, %v, %d guests", got, err, d.starts)
			}
		})
	}
}

// What may be mended is looked at again each time.
func TestUnsupportedIsNotKept(t *testing.T) {
	t.Parallel()
	d := newTalker()
	d.err = api.Errorf(api.KindUnsupported, "this host does not let us have a tap")
	o := options(t, d)
	if got, reason, err := Run(t.Context(), o); err != nil || got != vmm.TCG || !strings.Contains(reason, "a tap") {
		t.Errorf("got %s, %q, %v", got, reason, err)
	}
	d.err, d.say = nil, guestapi.ProbeReply
	if got, reason, err := Run(t.Context(), o); err != nil || got != vmm.KVM {
		t.Errorf("mended: %s, %q, %v", got, reason, err)
	}
}

func TestNoDevice(t *testing.T) {
	t.Parallel()
	d := newTalker()
	o := options(t, d)
	o.Device = filepath.Join(t.TempDir(), "kvm")
	got, reason, err := Run(t.Context(), o)
	if err != nil || got != vmm.TCG || !strings.Contains(reason, "has no") || d.starts != 0 {
		t.Errorf("got %s, %q, %v", got, reason, err)
	}
}

// tapped is a driver that takes a tap.
type tapped struct{ *talker }

func (d tapped) Capabilities() vmm.Capabilities {
	c := d.talker.Capabilities()
	c.Tap = true
	return c
}

// A driver that takes a tap needs that device too, whenever it is asked for; its
// guest has a network device.
func TestNoTun(t *testing.T) {
	t.Parallel()
	d := tapped{newTalker()}
	d.say = guestapi.ProbeReply
	o := options(t, d)
	o.Tun = filepath.Join(t.TempDir(), "tun")
	got, reason, err := Run(t.Context(), o)
	if err != nil || got != vmm.TCG || !strings.Contains(reason, "has no "+o.Tun) || d.starts != 0 {
		t.Errorf("got %s, %q, %v", got, reason, err)
	}
	if err := os.WriteFile(o.Tun, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, reason, err := Run(t.Context(), o); err != nil || got != vmm.KVM || d.starts != 1 {
		t.Errorf("with it: got %s, %q, %v", got, reason, err)
	}
	if d.nic == nil {
		t.Error("its guest had no network device")
	}
}

// Another file in the device's place, or the driver loaded anew, is another
// question too.
func TestAnotherDeviceIsAskedAnew(t *testing.T) {
	t.Parallel()
	d := newTalker()
	d.say = guestapi.ProbeReply
	o := options(t, d)
	if got, _, err := Run(t.Context(), o); err != nil || got != vmm.KVM {
		t.Fatalf("%s, %v", got, err)
	}
	other := o.Device + ".new"
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, o.Device); err != nil {
		t.Fatal(err)
	}
	d.say, d.err = "", errors.New("no such ioctl")
	if got, reason, err := Run(t.Context(), o); err != nil || got != vmm.TCG || d.starts != 2 {
		t.Errorf("got %s, %q, %v after %d guests", got, reason, err, d.starts)
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	missing := errors.New("no VMM")
	for name, change := range map[string]func(*Options) context.Context{
		"no VMM": func(o *Options) context.Context {
			o.Driver = fake.New(fake.Options{CheckError: missing}, o.Log)
			return t.Context()
		},
		"no initramfs": func(o *Options) context.Context {
			o.Initrd = func(context.Context, string) error { return missing }
			return t.Context()
		},
		"cancelled": func(*Options) context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx
		},
	} {
		o := options(t, newTalker())
		if got, _, err := Run(change(&o), o); err == nil {
			t.Errorf("%s: %s", name, got)
		}
		if _, err := os.Stat(o.CachePath); err == nil {
			t.Errorf("%s: a verdict was kept", name)
		}
	}
}

// A host that takes long to launch the VMM gets longer for the guest, up to a
// limit; a fast one never less than what is usual.
func TestSlowHostsGetLonger(t *testing.T) {
	t.Parallel()
	for launch, want := range map[time.Duration]time.Duration{
		0: 20 * time.Second, 50 * time.Millisecond: 20 * time.Second, 600 * time.Millisecond: 20 * time.Second,
		1200 * time.Millisecond: 40 * time.Second, 3600 * time.Millisecond: 2 * time.Minute, time.Minute: 2 * time.Minute,
	} {
		if got := patience(20*time.Second, launch); got != want {
			t.Errorf("a launch of %s gives %s, not %s", launch, got, want)
		}
	}
}

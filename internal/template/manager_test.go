package template

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/fake"
)

// maker is a driver that makes templates of nothing.
type maker struct {
	*fake.Driver
	made  chan vmm.Spec // what it was told to make
	block bool          // until it is given up
	err   error
}

func (d *maker) Templates(a vmm.Accelerator) bool { return a == vmm.TCG }

func (d *maker) Check(context.Context) (vmm.Version, error) {
	program, err := os.Executable()
	return vmm.Version{Program: program, Text: "1"}, err
}

func (d *maker) MakeTemplate(ctx context.Context, spec vmm.Spec, into vmm.Template) error {
	d.made <- spec
	if d.block {
		<-ctx.Done()
		return ctx.Err()
	}
	if d.err != nil {
		return d.err
	}
	if err := os.WriteFile(into.State, []byte("state"), 0o600); err != nil {
		return err
	}
	f, err := os.Create(into.Memory)
	if err == nil {
		err = errors.Join(f.Truncate(spec.MemoryBytes), f.Close())
	}
	return err
}

type fixture struct {
	*Manager
	driver *maker
	spec   vmm.Spec
	initrd guestapi.Config
	now    time.Time
}

func newFixture(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{driver: &maker{Driver: fake.New(fake.Options{}, slog.New(slog.DiscardHandler)), made: make(chan vmm.Spec, 10)}, now: time.Unix(1_800_000_000, 0)}
	dir := t.TempDir()
	kernel := filepath.Join(dir, "k1", "vmlinux")
	if err := os.MkdirAll(filepath.Dir(kernel), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kernel, []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("", "t") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	o := Options{
		Dir: filepath.Join(dir, "templates"), Runtime: run, HostBoot: "boot 1", Guest: "build", Drivers: []vmm.Driver{f.driver},
		Initrd: func(path, k string, c guestapi.Config) error {
			if k != kernel {
				t.Errorf("an initramfs for %s", k)
			}
			f.initrd = c
			return os.WriteFile(path, nil, 0o600)
		},
		FreeDisk:   func(string) (int64, error) { return 1 << 40, nil },
		FreeMemory: func() (int64, error) { return 1 << 40, nil },
		InMemory:   func(string) bool { return false },
		Now:        func() time.Time { return f.now },
		Banger:     kernel, MAC: "52:54:00:00:00:01",
		Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	f.Manager = New(o)
	t.Cleanup(func() { _ = f.Close(context.Background()) })
	f.spec = vmm.Spec{
		ID: "a", VCPUs: 1, MemoryBytes: 512 << 20, Accelerator: vmm.TCG, Kernel: kernel, RunDir: "/nowhere", Initrd: "/nowhere/initrd",
		Disks:   []vmm.Disk{{Path: "/image", Serial: "root", ReadOnly: true}, {Path: "/mine", Serial: "work"}},
		Network: &vmm.NIC{Socket: "/nowhere/net", MAC: "52:54:00:00:00:02", MTU: 4000},
	}
	return f
}

// await gives the template once it is made.
func (f *fixture) await(t *testing.T) *vmm.Template {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if got := f.For(t.Context(), "fake", f.spec); got != nil {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatal("no template is made")
		}
	}
}

func TestMadeOnceForAllOfAKind(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	if got := f.For(t.Context(), "fake", f.spec); got != nil {
		t.Fatalf("before any was made: %+v", got)
	}
	for range 3 {
		f.Booted(t.Context(), "fake", f.spec)
	}
	f.await(t)
	f.Booted(t.Context(), "fake", f.spec)
	f.wg.Wait()
	own := <-f.driver.made
	if len(f.driver.made) > 0 {
		t.Error("made more than once")
	}
	// It is no machine of anybody's.
	if own.ID == f.spec.ID || own.RunDir == f.spec.RunDir || own.Initrd == f.spec.Initrd || own.Network.MAC == f.spec.Network.MAC || own.Network.Socket == f.spec.Network.Socket {
		t.Errorf("made from %+v", own)
	}
	for i, d := range own.Disks {
		if d.Path == f.spec.Disks[i].Path || d.ReadOnly != f.spec.Disks[i].ReadOnly {
			t.Errorf("disk %d is %+v", i, d)
		}
	}
	if !f.initrd.Park || f.initrd.Token != "" || f.initrd.Seed != nil {
		t.Errorf("the guest is told %+v", f.initrd)
	}
	if left, _ := os.ReadDir(f.o.Runtime); len(left) > 0 {
		t.Errorf("%s is left in the folder for sockets", left[0].Name())
	}

	// Another machine, with other disks and addresses, is of the same kind.
	same := f.spec
	same.ID, same.Disks = "b", []vmm.Disk{{Path: "/image2", Serial: "root", ReadOnly: true}, {Path: "/other", Serial: "work"}}
	if f.For(t.Context(), "fake", same) == nil {
		t.Error("another machine of its kind gets none")
	}
	for name, change := range map[string]func(*vmm.Spec){
		"processors":  func(s *vmm.Spec) { s.VCPUs = 2 },
		"odd memory":  func(s *vmm.Spec) { s.MemoryBytes++ },
		"memory":      func(s *vmm.Spec) { s.MemoryBytes *= 2 },
		"disks":       func(s *vmm.Spec) { s.Disks = append(s.Disks, vmm.Disk{Path: "/seed", ReadOnly: true}) },
		"writable":    func(s *vmm.Spec) { s.Disks = []vmm.Disk{{Path: "/image"}, {Path: "/mine"}} },
		"no network":  func(s *vmm.Spec) { s.Network = nil },
		"MTU":         func(s *vmm.Spec) { s.Network = &vmm.NIC{MTU: 1500} },
		"parameters":  func(s *vmm.Spec) { s.Cmdline = []string{"debug"} },
		"accelerator": func(s *vmm.Spec) { s.Accelerator = vmm.KVM },
		"link":        func(s *vmm.Spec) { s.Transport = guestapi.TransportVsock },
		"kernel": func(s *vmm.Spec) {
			s.Kernel = filepath.Join(t.TempDir(), "vmlinux")
			if err := os.WriteFile(s.Kernel, []byte("another"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		other := f.spec
		change(&other)
		if got := f.For(t.Context(), "fake", other); got != nil {
			t.Errorf("another kind by its %s gets the template", name)
		}
	}
}

func TestAnotherBootOfTheHost(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.Booted(t.Context(), "fake", f.spec)
	got := f.await(t)
	stranger := filepath.Join(f.o.Dir, "README")
	half := filepath.Join(f.o.Dir, "new-123")
	sockets := filepath.Join(f.o.Runtime, "tpl-1") // of a daemon that was killed
	for _, dir := range []string{stranger, half, sockets} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	kind, err := os.ReadFile(filepath.Join(filepath.Dir(got.Memory), kindFile))
	if err != nil || os.WriteFile(filepath.Join(half, kindFile), kind, 0o600) != nil { // it was all but renamed
		t.Fatal(err)
	}
	again := f.o
	New(again)
	if _, err := os.Stat(got.Memory); err != nil {
		t.Errorf("gone after another start of the daemon: %v", err)
	}
	for _, dir := range []string{half, sockets} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("what is half made is left: %s", dir)
		}
	}
	again.HostBoot = "boot 2"
	m := New(again)
	if got := m.For(t.Context(), "fake", f.spec); got != nil {
		t.Error("the template of another boot of the host is used")
	}
	if _, err := os.Stat(got.Memory); err == nil {
		t.Error("the template of another boot of the host is left")
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Errorf("what is not ours is gone: %v", err)
	}
}

func TestWhatIsDamagedIsNotUsed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.Booted(t.Context(), "fake", f.spec)
	got := f.await(t)
	if err := os.Truncate(got.Memory, 4096); err != nil {
		t.Fatal(err)
	}
	if f.For(t.Context(), "fake", f.spec) != nil {
		t.Error("half a memory is used")
	}
	f.Bad(*got, errors.New("it does not answer"))
	if _, err := os.Stat(filepath.Dir(got.Memory)); err == nil {
		t.Error("a bad one is left")
	}
	f.Booted(t.Context(), "fake", f.spec)
	f.wg.Wait()
	if n := len(f.driver.made); n != 1 {
		t.Errorf("made %d times", n)
	}
	// One that an earlier daemon has made.
	f = newFixture(t, nil)
	f.Booted(t.Context(), "fake", f.spec)
	got = f.await(t)
	f.wg.Wait()
	<-f.driver.made
	later := New(f.o)
	later.Bad(*got, errors.New("it does not answer"))
	later.Booted(t.Context(), "fake", f.spec)
	later.wg.Wait()
	if n := len(f.driver.made); n != 0 {
		t.Errorf("made again right after it was bad")
	}
	f.now = f.now.Add(notAgain)
	later.Booted(t.Context(), "fake", f.spec)
	later.wg.Wait()
	if later.For(t.Context(), "fake", f.spec) == nil {
		t.Errorf("not made again a while after it was bad")
	}
	elsewhere := filepath.Join(t.TempDir(), "memory")
	f.Bad(vmm.Template{Memory: elsewhere}, errors.New("x"))
	if _, err := os.Stat(filepath.Dir(elsewhere)); err != nil {
		t.Error("a folder that is not ours is gone")
	}
}

func TestNotMade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		driver func(*maker)
	}{
		"no disk":    {func(o *Options) { o.FreeDisk = func(string) (int64, error) { return spareDisk, nil } }, nil},
		"no memory":  {func(o *Options) { o.FreeMemory = func() (int64, error) { return spareMemory, nil } }, nil},
		"in memory":  {func(o *Options) { o.InMemory = func(string) bool { return true } }, nil},
		"it fails":   {nil, func(d *maker) { d.err = errors.New("no") }},
		"no initrd":  {func(o *Options) { o.Initrd = func(string, string, guestapi.Config) error { return errors.New("no") } }, nil},
		"we leave":   {nil, func(d *maker) { d.block = true }},
		"no boot id": {func(o *Options) { o.HostBoot = "" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, c.change)
			if c.driver != nil {
				c.driver(f.driver)
			}
			f.Booted(t.Context(), "fake", f.spec)
			if f.driver.block {
				<-f.driver.made
			} else {
				f.wg.Wait()
			}
			_ = f.Close(t.Context())
			if f.For(t.Context(), "fake", f.spec) != nil {
				t.Error("a template is there")
			}
			for _, dir := range []string{f.o.Dir, f.o.Runtime} {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("%s is left in %s", left[0].Name(), dir)
				}
			}
			f.Booted(t.Context(), "fake", f.spec) // after the end, and at all: once is enough
			f.wg.Wait()
			if n := len(f.driver.made); n > 1 {
				t.Errorf("tried %d times", n)
			}
		})
	}
}

func TestOnlyAFewAreKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	first := f.spec
	for i := range keepAtMost + 2 {
		f.spec.MemoryBytes = int64(512+i) << 20
		f.Booted(t.Context(), "fake", f.spec)
		f.await(t)
		if f.For(t.Context(), "fake", first) == nil { // used each time, so never the oldest
			t.Fatalf("the one in use is gone after %d more", i)
		}
	}
	f.wg.Wait()
	if n := len(f.all()); n != keepAtMost {
		t.Errorf("%d are kept", n)
	}
	// One that had to go, and all of them, are made again when they are wanted.
	f.spec.MemoryBytes = 513 << 20
	if f.For(t.Context(), "fake", f.spec) != nil {
		t.Fatal("the one that was used longest ago is kept")
	}
	f.Booted(t.Context(), "fake", f.spec)
	f.await(t)
	f.wg.Wait()
	if err := os.RemoveAll(f.o.Dir); err != nil {
		t.Fatal(err)
	}
	f.Booted(t.Context(), "fake", f.spec)
	f.await(t)
}

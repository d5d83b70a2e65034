package qemu

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/qemu/testkernel"
)

// patience is for a busy machine; nothing here takes long by itself.
const patience = 60 * time.Second

func newTestDriver(t *testing.T) *Driver {
	t.Helper()
	if _, err := exec.LookPath(programName); err != nil {
		t.Skip("no QEMU here")
	}
	return New(Options{}, slog.New(slog.DiscardHandler))
}

// text is a console that can be read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *text) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *text) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// await waits until the console holds s.
func (o *text) await(t *testing.T, s string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(o.String(), s); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the console does not say %q: %q", s, o.String())
		}
	}
}

func testSpec(t *testing.T, p *testkernel.Program) vmm.Spec {
	t.Helper()
	dir, err := os.MkdirTemp("", "banger-qemu") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return vmm.Spec{
		ID: "t", VCPUs: 1, MemoryBytes: 128 << 20, Accelerator: vmm.TCG, Kernel: p.Write(t),
		RunDir: dir, LogFile: filepath.Join(dir, "log"),
	}
}

func start(t *testing.T, d *Driver, spec vmm.Spec, out io.Writer) *Machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := d.Start(ctx, spec, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill()
		<-m.Done()
	})
	return m.(*Machine)
}

func awaitEnd(t *testing.T, m vmm.Machine) vmm.Exit {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(patience):
		t.Fatal("the machine does not end")
	}
	return m.Exit()
}

func TestEnds(t *testing.T) {
	t.Parallel()
	const panicLine = "[    1.0] Kernel panic - not syncing: Attempted to kill init!\r\n"
	for name, c := range map[string]struct {
		program *testkernel.Program
		want    vmm.Exit
	}{
		"power off":             {new(testkernel.Program).Print("hello\n").PowerOff(), vmm.Exit{Reason: vmm.ReasonPowerOff}},
		"reset":                 {new(testkernel.Program).Print("hello\n").Reset(), vmm.Exit{Reason: vmm.ReasonReset}},
		"panic":                 {new(testkernel.Program).Print("hello\n" + panicLine).Reset(), vmm.Exit{Reason: vmm.ReasonPanic, Detail: "Attempted to kill init!"}},
		"power off after a lie": {new(testkernel.Program).Print("hello\n" + panicLine).PowerOff(), vmm.Exit{Reason: vmm.ReasonPowerOff}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out text
			m := start(t, newTestDriver(t), testSpec(t, c.program), &out)
			got := awaitEnd(t, m)
			if got.Reason != c.want.Reason || got.Detail != c.want.Detail || time.Since(got.At) > time.Hour {
				t.Errorf("ended with %+v, want %+v", got, c.want)
			}
			if !strings.HasPrefix(out.String(), "hello\n") {
				t.Errorf("console %q", out.String())
			}
			if _, err := os.Stat(m.linkSocket); !os.IsNotExist(err) {
				t.Errorf("the link's socket is still there: %v", err)
			}
		})
	}
}

// A kernel that lost its timer on a busy host is booted again.
func TestTimerLost(t *testing.T) {
	t.Parallel()
	p := new(testkernel.Program).FirstBoot("[ 0.2] APIC frequency too slow, disabling apic timer\r\n").Print("second boot\n").PowerOff()
	var out text
	m := start(t, newTestDriver(t), testSpec(t, p), &out)
	defer func() {
		if t.Failed() {
			t.Logf("console %q", out.String())
		}
	}()
	if got := awaitEnd(t, m); got.Reason != vmm.ReasonPowerOff {
		t.Errorf("ended with %+v", got)
	}
	if !strings.Contains(out.String(), "second boot") {
		t.Errorf("console %q", out.String())
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	var out text
	m := start(t, newTestDriver(t), testSpec(t, new(testkernel.Program).Print("up\n").Halt()), &out)
	out.await(t, "up")
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := awaitEnd(t, m); got.Reason != vmm.ReasonKilled {
		t.Errorf("ended with %+v", got)
	}
	ctx := t.Context()
	for name, err := range map[string]error{
		"Kill": m.Kill(), "Pause": m.Pause(ctx), "Resume": m.Resume(ctx), "PowerButton": m.PowerButton(ctx),
	} {
		if api.KindOf(err) != api.KindBadState {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	if _, err := m.DialGuest(ctx); api.KindOf(err) != api.KindBadState {
		t.Errorf("DialGuest after the end: %v", err)
	}
}

func TestKilledByOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signal syscall.Signal
		want   string
	}{"KILL": {syscall.SIGKILL, "signal: killed"}, "TERM": {syscall.SIGTERM, "host-signal"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out text
			m := start(t, newTestDriver(t), testSpec(t, new(testkernel.Program).Print("up\n").Halt()), &out)
			out.await(t, "up")
			if err := syscall.Kill(m.PID(), c.signal); err != nil {
				t.Fatal(err)
			}
			if got := awaitEnd(t, m); got.Reason != vmm.ReasonCrashed || !strings.Contains(got.Detail, c.want) {
				t.Errorf("ended with %+v", got)
			}
		})
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	var out text
	m := start(t, newTestDriver(t), testSpec(t, new(testkernel.Program).Print("up\n").Halt()), &out)
	for i, f := range []func(context.Context) error{m.Pause, m.Pause, m.Resume, m.Resume} {
		if err := f(t.Context()); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

// stuck is a console writer that takes nothing.
type stuck struct{ free chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.free
	return len(p), nil
}

// A writer that takes nothing stops neither the guest nor its end.
func TestConsoleStuck(t *testing.T) {
	t.Parallel()
	p := new(testkernel.Program)
	for range 20 {
		p.Print(strings.Repeat("flood", 400) + "\n")
	}
	s := stuck{make(chan struct{})}
	defer close(s.free)
	m := start(t, newTestDriver(t), testSpec(t, p.PowerOff()), s)
	if got := awaitEnd(t, m); got.Reason != vmm.ReasonPowerOff {
		t.Errorf("ended with %+v", got)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	spec := testSpec(t, new(testkernel.Program).Print("up\n").Halt())
	path := filepath.Join(spec.RunDir, "a,b \"c\".img") // no character of a name has a meaning
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Disks = []vmm.Disk{{Path: path, Serial: "work"}}
	m := start(t, newTestDriver(t), spec, io.Discard)
	if err := m.Resize(t.Context(), "work", 2<<20); err != nil {
		t.Error(err)
	}
	if err := m.Resize(t.Context(), "work", 1<<19); api.KindOf(err) != api.KindInvalid {
		t.Errorf("shrinking: %v", err)
	}
	if err := m.Resize(t.Context(), "other", 2<<20); api.KindOf(err) != api.KindNotFound {
		t.Errorf("unknown disk: %v", err)
	}
}

func TestDiskInUse(t *testing.T) {
	t.Parallel()
	spec := testSpec(t, new(testkernel.Program).Halt())
	path := filepath.Join(spec.RunDir, "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Disks = []vmm.Disk{{Path: path, Serial: "work"}}
	d := newTestDriver(t)
	start(t, d, spec, io.Discard)
	second := testSpec(t, new(testkernel.Program).Halt())
	second.Disks = spec.Disks
	if _, err := d.Start(t.Context(), second, io.Discard); api.KindOf(err) != api.KindBusy {
		t.Errorf("a second machine on the disk: %v", err)
	}
}

func TestFleetingDisksAreNotFlushed(t *testing.T) {
	t.Parallel()
	spec := vmm.Spec{ID: "t", VCPUs: 1, MemoryBytes: 128 << 20, Accelerator: vmm.TCG, Disks: []vmm.Disk{{Path: "/kept"}, {Path: "/fleeting", Fleeting: true}}}
	all := strings.Join(arguments(spec, 0, 0, memory{}), "\n")
	for _, want := range []string{`"cache":{"no-flush":false},"discard":"unmap","driver":"file","filename":"/kept"`, `"cache":{"no-flush":true},"discard":"unmap","driver":"file","filename":"/fleeting"`} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
}

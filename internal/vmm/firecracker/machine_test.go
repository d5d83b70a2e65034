package firecracker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// patience is for a busy machine; nothing here takes long by itself.
const patience = 60 * time.Second

func signalContext() context.Context { return context.Background() }

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

func testSpec(t *testing.T) vmm.Spec {
	t.Helper()
	dir, err := os.MkdirTemp("", "banger-fc") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return vmm.Spec{
		ID: "t", VCPUs: 1, MemoryBytes: 128 << 20, Accelerator: vmm.KVM, Kernel: kernel,
		RunDir: dir, LogFile: filepath.Join(dir, "log"), MetricsFile: filepath.Join(dir, "metrics.json"),
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
		_ = m.Kill() // it may have ended
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

// nothingLeft checks that no file of Firecracker's is left.
func nothingLeft(t *testing.T, spec vmm.Spec) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(spec.RunDir, folder)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files of Firecracker are left: %v", err)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	const panicLine = "[    1.0] Kernel panic - not syncing: Attempted to kill init!\r\n"
	for name, c := range map[string]struct {
		console string
		ends    int
		want    vmm.Exit
	}{
		"halted":            {"hello\r\n[   12.345678] reboot: System halted\r\n", -1, vmm.Exit{Reason: vmm.ReasonPowerOff}},
		"power off":         {"hello\r\nreboot: Power down\r\n", -1, vmm.Exit{Reason: vmm.ReasonPowerOff}},
		"reset":             {"hello\r\n[ 1.0] reboot: Restarting system\r\n", 0, vmm.Exit{Reason: vmm.ReasonReset}},
		"panic":             {"hello\r\n" + panicLine, 0, vmm.Exit{Reason: vmm.ReasonPanic, Detail: "Attempted to kill init!"}},
		"halted in a line":  {"hello\r\nread-only file system[    6.098450] reboot: System halted\r\n", -1, vmm.Exit{Reason: vmm.ReasonPowerOff}},
		"halted after much": {"hello\r\n" + strings.Repeat("x", 4000) + "[    6.098450] reboot: Power down\r\n", -1, vmm.Exit{Reason: vmm.ReasonPowerOff}},
		"speaks of halting": {"hello\r\nI say: reboot: System halted\r\n", 0, vmm.Exit{Reason: vmm.ReasonReset}},
		"crash":             {"hello\r\n", 148, vmm.Exit{Reason: vmm.ReasonCrashed, Detail: "exit status 148 (it made a system call that its filter forbids)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, spec := sound(), testSpec(t)
			s.Console, s.Ends = c.console, c.ends
			var out text
			m := start(t, s.driver(t), spec, &out)
			got := awaitEnd(t, m)
			if got.Reason != c.want.Reason || got.Detail != c.want.Detail || time.Since(got.At) > time.Hour {
				t.Errorf("ended with %+v, want %+v", got, c.want)
			}
			if !strings.HasPrefix(out.String(), "hello\r\n") {
				t.Errorf("console %q", out.String())
			}
			nothingLeft(t, spec)
		})
	}
}

// A Firecracker that does not come up is an error that tells why and what to do,
// and leaves nothing.
func TestStartFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*stub)
		kind   api.Kind
		text   string
		hint   string
	}{
		"too old":        {func(s *stub) { s.Version = "1.11.0" }, api.KindUnsupported, "1.11.0 is older than 1.12", "fetch-firecracker"},
		"known bad":      {func(s *stub) { s.Version = "1.16.1" }, api.KindUnsupported, "after a pause", "fetch-firecracker"},
		"no version":     {func(s *stub) { s.API = "newest" }, api.KindUnsupported, `calls its version "newest"`, "fetch-firecracker"},
		"crashes":        {func(s *stub) { s.Says, s.Dies = "it is all wrong", 1 }, api.KindUnavailable, "exit status 1: it is all wrong", "doctor"},
		"panics":         {func(s *stub) { s.Cries, s.Dies = "thread 'main' panicked\n", 101 }, api.KindUnavailable, "panicked", "doctor"},
		"silent":         {func(s *stub) { s.Dies = 0 }, api.KindUnavailable, "it ended: exit status 0", "doctor"},
		"deaf":           {func(s *stub) { s.Deaf = true }, api.KindUnavailable, "it hangs: its API did not come up", "doctor"},
		"mute":           {func(s *stub) { s.Mute = true }, api.KindUnavailable, "it hangs: its API did not tell its version", "doctor"},
		"refuses a disk": {func(s *stub) { s.Refuses, s.Fault = "/vsock", "no such\x1b thing" }, api.KindUnavailable, "does not take its vsock: no such", "doctor"},
		"kvm denied": {func(s *stub) {
			s.Refuses, s.Fault = "/actions", "Internal error while starting microVM: Error creating KVM object: Permission denied (os error 13)"
		}, api.KindDenied, "KVM", "usermod -aG kvm"},
		"no memory": {func(s *stub) { s.Refuses, s.Fault = "/actions", "Cannot allocate memory (os error 12)" }, api.KindUnavailable, "no 128 MiB of memory", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, spec := sound(), testSpec(t)
			c.change(&s)
			d := s.driver(t)
			if s.Deaf || s.Mute {
				d.patience = time.Second
			}
			_, err := d.Start(t.Context(), spec, io.Discard)
			if api.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Fatalf("got %v (%s)", err, api.KindOf(err))
			}
			if hint := api.AsError(err).Hint; !strings.Contains(hint, c.hint) {
				t.Errorf("hint %q", hint)
			}
			nothingLeft(t, spec)
		})
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	d := sound().driver(t)
	for name, c := range map[string]struct {
		change func(*vmm.Spec, *Driver)
		kind   api.Kind
		text   string
	}{
		"path too long": {func(s *vmm.Spec, _ *Driver) { s.RunDir += "/" + strings.Repeat("x", 100) }, api.KindInvalid, "107 are possible"},
		"cmdline":       {func(s *vmm.Spec, _ *Driver) { s.Cmdline = []string{strings.Repeat("x", 2048)} }, api.KindInvalid, "kernel parameters"},
		"emulation":     {func(s *vmm.Spec, _ *Driver) { s.Accelerator = vmm.TCG }, api.KindUnsupported, "only kvm"},
		"serial link":   {func(s *vmm.Spec, _ *Driver) { s.Transport = "serial" }, api.KindUnsupported, "only vsock"},
		"id":            {func(s *vmm.Spec, _ *Driver) { s.ID = "a/b" }, api.KindInvalid, "its id"},
		"processors":    {func(s *vmm.Spec, _ *Driver) { s.VCPUs = 33 }, api.KindInvalid, "33 processors"},
		"no disk":       {func(s *vmm.Spec, _ *Driver) { s.Disks = []vmm.Disk{{Path: "/nonexistent"}} }, api.KindUnavailable, "its disk"},
		"no kvm":        {func(_ *vmm.Spec, d *Driver) { d.opts.KVM = "/nonexistent/kvm" }, api.KindUnsupported, "no /nonexistent/kvm"},
		"missing":       {func(_ *vmm.Spec, d *Driver) { d.opts.Binary = "/nonexistent/firecracker" }, api.KindUnavailable, "cannot find Firecracker"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := testSpec(t)
			own := newDriver(d.opts.Binary, d.opts.Self, d.opts.KVM)
			c.change(&spec, own)
			_, err := own.Start(t.Context(), spec, io.Discard)
			if api.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("got %v (%s)", err, api.KindOf(err))
			}
			nothingLeft(t, spec)
		})
	}
}

// When its keeper is killed, no Firecracker is left a second later, though it is
// in process and user namespaces of its own.
func TestDiesWithItsKeeper(t *testing.T) {
	t.Parallel()
	needTun(t)
	d, spec := sound().driver(t), testSpec(t)
	cmd := exec.Command(d.opts.Self, "keeper", d.opts.Binary, d.opts.KVM, spec.RunDir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || syscall.Kill(pid, 0) != nil {
		t.Fatalf("no Firecracker runs: %q %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	_ = cmd.Wait()
	for gone := false; !gone; time.Sleep(time.Millisecond) {
		gone = errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			gone = gone || strings.Contains(string(stat), ") Z ")
		}
		if time.Since(killed) > time.Second && !gone {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("Firecracker lives on")
		}
	}
}

// It has no capability, cannot get one, and is in namespaces of its own.
func TestConfinement(t *testing.T) {
	t.Parallel()
	m := start(t, sound().driver(t), testSpec(t), io.Discard)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	none := strings.Repeat("0", 16)
	for _, want := range []string{"CapInh:\t" + none, "CapPrm:\t" + none, "CapEff:\t" + none, "CapBnd:\t" + none, "CapAmb:\t" + none, "NoNewPrivs:\t1", "NSpid:"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("its status lacks %q:\n%s", want, status)
		}
	}
	kinds := []string{"user", "mnt", "pid", "net", "ipc", "uts"}
	if m.who != nil { // root's has a user of its own instead
		kinds = kinds[1:]
		own := fmt.Sprintf("\t%d\t%[1]d\t%[1]d\t%[1]d\n", m.who.uid)
		for _, want := range []string{"Uid:" + own, "Gid:" + own, "Groups:\t \n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("its status lacks %q:\n%s", want, status)
			}
		}
	}
	for _, ns := range kinds {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", m.PID(), ns)); err != nil || theirs == ours {
			t.Errorf("namespace %s: %s, ours is %s (%v)", ns, theirs, ours, err)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Max address space         1125900041060352", "Max open files            1100", "Max core file size        0"} {
		if !strings.Contains(string(limits), want) {
			t.Errorf("its limits lack %q:\n%s", want, limits)
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	spec := testSpec(t)
	m := start(t, sound().driver(t), spec, io.Discard)
	for _, do := range []func(context.Context) error{m.Pause, m.Pause, m.Resume, m.PowerButton} {
		if err := do(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := awaitEnd(t, m); got.Reason != vmm.ReasonKilled {
		t.Errorf("ended with %+v", got)
	}
	ctx := t.Context()
	_, dial := m.DialGuest(ctx)
	for name, err := range map[string]error{
		"Kill": m.Kill(), "Pause": m.Pause(ctx), "Resume": m.Resume(ctx), "PowerButton": m.PowerButton(ctx), "DialGuest": dial,
	} {
		if api.KindOf(err) != api.KindBadState {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	nothingLeft(t, spec)
}

// A Firecracker that hangs while it runs is not waited for for ever, however long
// the caller would; and it can be killed.
func TestHangsWhileItRuns(t *testing.T) {
	t.Parallel()
	s := sound()
	s.Ignores = "/vm"
	d := s.driver(t)
	d.patience = 5 * time.Second
	m := start(t, d, testSpec(t), io.Discard)
	m.patience = 100 * time.Millisecond
	for name, err := range map[string]error{"pause": m.Pause(t.Context()), "resume": m.Resume(t.Context())} {
		if api.KindOf(err) != api.KindTimeout || !strings.Contains(err.Error(), "Firecracker does not answer") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := awaitEnd(t, m); got.Reason != vmm.ReasonKilled {
		t.Errorf("ended with %+v", got)
	}
}

// A Firecracker that fills its log fills no disk, and is not stopped by it.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	s, spec := sound(), testSpec(t)
	s.Floods, s.Console = 8<<20, "flooded\n"
	var out text
	start(t, s.driver(t), spec, &out)
	for deadline := time.Now().Add(patience); !strings.Contains(out.String(), "flooded"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not go on")
		}
	}
	fi, err := os.Stat(spec.LogFile)
	if err != nil || fi.Size() > 256<<10 || fi.Size() < 1<<10 {
		t.Errorf("the log has %d bytes, %v", fi.Size(), err)
	}
}

// A guest that resets its connections again and again costs the one who dials a
// wait, and nobody else anything.
func TestDialGuestThroughResets(t *testing.T) {
	t.Parallel()
	s := sound()
	s.Resets = 20
	m := start(t, s.driver(t), testSpec(t), io.Discard)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := m.DialGuest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "second"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("firstsecond"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "firstsecond" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDialGuestInAStorm(t *testing.T) {
	t.Parallel()
	s := sound()
	s.Resets = 1 << 30
	m := start(t, s.driver(t), testSpec(t), io.Discard)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.DialGuest(ctx); api.KindOf(err) != api.KindTimeout {
		t.Errorf("got %v", err)
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Errorf("the machine is not usable any more: %v", err)
	}
}

func TestDiskInUse(t *testing.T) {
	t.Parallel()
	d, spec := sound().driver(t), testSpec(t)
	path := filepath.Join(spec.RunDir, "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Disks = []vmm.Disk{{Path: path, Serial: "work"}}
	m := start(t, d, spec, io.Discard)
	second := testSpec(t)
	second.Disks = spec.Disks
	if _, err := d.Start(t.Context(), second, io.Discard); api.KindOf(err) != api.KindBusy {
		t.Errorf("a second machine on the disk: %v", err)
	}
	if err := m.Resize(t.Context(), "work", 2<<20); err != nil {
		t.Error(err)
	}
	if err := m.Resize(t.Context(), "work", 1<<19); api.KindOf(err) != api.KindInvalid {
		t.Errorf("shrinking: %v", err)
	}
	if err := m.Resize(t.Context(), "other", 2<<20); api.KindOf(err) != api.KindNotFound {
		t.Errorf("unknown disk: %v", err)
	}
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
	awaitEnd(t, m)
	start(t, d, second, io.Discard)
}

// needTun skips where the user may make no tap: most hosts let everybody.
func needTun(t *testing.T) {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	_ = f.Close()
}

// The tap's two ends carry frames, of the size that is asked for.
func TestTap(t *testing.T) {
	t.Parallel()
	needTun(t)
	spec := testSpec(t)
	spec.Network = &vmm.NIC{MAC: "52:54:00:00:00:01", MTU: 65520}
	m := start(t, sound().driver(t), spec, io.Discard)
	tap := m.Tap()
	if tap == nil {
		t.Fatal("no tap")
	}
	defer tap.Close()
	frame := make([]byte, 65520+14)
	for i := range 6 {
		frame[i] = 0xff
	}
	if n, err := tap.Write(frame); err != nil || n != len(frame) {
		t.Errorf("wrote %d bytes of a frame, %v", n, err)
	}
}

func TestParseGreeting(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		rest string
		done bool
		ok   bool
	}{
		"OK 1073741824\n":         {"", true, true},
		"OK 1\nfirst":             {"first", true, true},
		"OK 1":                    {"", false, true},
		"OK x\n":                  {"", false, false},
		"NO 1\n":                  {"", false, false},
		strings.Repeat("OK 1", 8): {"", false, false},
	} {
		rest, done, err := parseGreeting([]byte(in))
		if string(rest) != want.rest || done != want.done || (err == nil) != want.ok {
			t.Errorf("%q: %q %t %v", in, rest, done, err)
		}
	}
}

func FuzzGreeting(f *testing.F) {
	f.Add([]byte("OK 1073741824\nrest"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.ReadFull(theirs, make([]byte, len("CONNECT 1022\n")))
			_, _ = theirs.Write(b)
			_ = theirs.Close()
		}()
		rest, err := greet(ours)
		_ = ours.Close()
		if err == nil && !bytes.HasPrefix(b, []byte("OK ")) || len(rest) > maxGreeting {
			t.Errorf("%q gives %q, %v", b, rest, err)
		}
	})
}

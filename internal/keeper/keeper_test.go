package keeper

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/network"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/qemu/testkernel"
)

const patience = time.Minute

// TestMain lets the test binary be the keeper.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		if err := Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func newDir(t *testing.T) layout.VMDir {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("no QEMU here")
	}
	base, err := os.MkdirTemp("", "banger-k") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	dir := layout.VMDir{State: filepath.Join(base, "s"), Run: filepath.Join(base, "r")}
	if err := os.Mkdir(dir.State, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func config(t *testing.T, p *testkernel.Program) Config {
	u := network.DefaultUser()
	return Config{Driver: "qemu", Network: &u, Token: strings.Repeat("0", 64), Spec: vmm.Spec{
		ID: "t", VCPUs: 1, MemoryBytes: 128 << 20, Accelerator: vmm.TCG, Kernel: p.Write(t),
	}}
}

func launch(t *testing.T, dir layout.VMDir, cfg Config) *Client {
	t.Helper()
	c, err := Launch(limit(t), os.Args[0], dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill(context.Background()) // it may be gone
		select {
		case <-c.Done():
		case <-time.After(patience):
			t.Error("the keeper does not end")
		}
		c.Close()
	})
	return c
}

func awaitDone(t *testing.T, c *Client) {
	t.Helper()
	select {
	case <-c.Done():
	case <-limit(t).Done():
		t.Fatal("the keeper does not end")
	}
}

// awaitGone waits until the process is gone or a zombie.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func noSockets(t *testing.T, dir layout.VMDir) {
	t.Helper()
	entries, err := os.ReadDir(dir.Run)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left in the run folder", e.Name())
	}
}

// A template that is of no use costs time, no machine.
func TestATemplateOfNoUse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ memory, state string }{
		"garbage":   {"", "this is no state of a machine"},
		"no memory": {"/nonexistent/memory", ""},
		"no state":  {"", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			cfg := config(t, new(testkernel.Program).Print("hello\n").Forever())
			files := vmm.Template{Memory: filepath.Join(dir.State, "memory"), State: filepath.Join(dir.State, "state")}
			if c.memory != "" {
				files.Memory = c.memory
			} else if err := os.WriteFile(files.Memory, nil, 0o600); err != nil || os.Truncate(files.Memory, cfg.Spec.MemoryBytes) != nil {
				t.Fatal(err)
			}
			if c.state == "none" {
				files.State += ".none"
			} else if err := os.WriteFile(files.State, []byte(c.state), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg.Spec.Template, cfg.Spec.Wake = &files, &guestapi.Wake{}
			k := launch(t, dir, cfg)
			s, err := k.State(limit(t))
			if err != nil || s.Phase != PhaseRunning || s.NoTemplate == "" {
				t.Errorf("its state is %+v, %v", s, err)
			}
		})
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		program *testkernel.Program
		want    vmm.Exit
	}{
		"power off": {new(testkernel.Program).Print("hello\n").PowerOff(), vmm.Exit{Reason: vmm.ReasonPowerOff}},
		"panic":     {new(testkernel.Program).Print("hello\nKernel panic - not syncing: no init\n").Reset(), vmm.Exit{Reason: vmm.ReasonPanic, Detail: "no init"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			k := launch(t, dir, config(t, c.program))
			awaitDone(t, k)
			got, ok := k.Exit()
			if !ok || got.Reason != c.want.Reason || got.Detail != c.want.Detail || got.At.IsZero() {
				t.Errorf("ended with %+v, %v", got, ok)
			}
			if b, err := os.ReadFile(dir.ConsoleLog()); err != nil || !strings.HasPrefix(string(b), "hello\n") {
				t.Errorf("console %q, %v", b, err)
			}
			noSockets(t, dir)
			if _, err := Attach(limit(t), dir); api.KindOf(err) != api.KindNotFound {
				t.Errorf("Attach after the end: %v", err)
			}
		})
	}
}

func TestWatchAndVerbs(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	first := launch(t, dir, config(t, new(testkernel.Program).Halt()))
	c, err := Attach(limit(t), dir) // as another daemon would
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := limit(t)
	states, err := c.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := <-states
	if s.Phase != PhaseRunning || s.PID <= 0 || s.VMMPID <= 0 || s.BootID != first.BootID() {
		t.Errorf("state %+v", s)
	}
	for name, f := range map[string]func(context.Context) error{"Pause": c.Pause, "Resume": c.Resume, "PowerButton": c.PowerButton} {
		if err := f(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Resize(ctx, "none", 1); api.KindOf(err) != api.KindNotFound {
		t.Errorf("Resize of no disk: %v", err)
	}
	// A second keeper of the same VM is refused, and the first is not disturbed.
	if _, err := Launch(ctx, os.Args[0], dir, config(t, new(testkernel.Program).Halt())); api.KindOf(err) != api.KindBusy {
		t.Errorf("a second keeper: %v", err)
	}
	if _, ok := c.Exit(); ok {
		t.Error("Exit although it lives")
	}
	if err := c.Kill(ctx); err != nil {
		t.Error(err)
	}
	var last State
	for s := range states {
		last = s
	}
	if last.Phase != PhaseExited || last.Exit == nil || last.Exit.Reason != vmm.ReasonKilled {
		t.Errorf("the last state is %+v", last)
	}
	awaitDone(t, c)
	awaitDone(t, first)
	if e, ok := c.Exit(); !ok || e.Reason != vmm.ReasonKilled {
		t.Errorf("exit %+v, %v", e, ok)
	}
	if err := c.Pause(ctx); api.KindOf(err) != api.KindNotFound {
		t.Errorf("Pause after the end: %v", err)
	}
}

// A keeper killed hard takes its VMM along, and leaves no word.
func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := launch(t, dir, config(t, new(testkernel.Program).Halt()))
	s, err := c.State(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, c)
	awaitGone(t, s.VMMPID)
	if e, ok := c.Exit(); ok {
		t.Errorf("an exit file: %+v", e)
	}
	if _, err := Attach(limit(t), dir); api.KindOf(err) != api.KindNotFound {
		t.Errorf("Attach: %v", err)
	}
	// Its sockets are stale, and in nobody's way.
	again := launch(t, dir, config(t, new(testkernel.Program).PowerOff()))
	awaitDone(t, again)
	if e, ok := again.Exit(); !ok || e.Reason != vmm.ReasonPowerOff {
		t.Errorf("the next life ended with %+v, %v", e, ok)
	}
	noSockets(t, dir)
}

func TestVMMKilled(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := launch(t, dir, config(t, new(testkernel.Program).Halt()))
	s, err := c.State(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.VMMPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, c)
	if e, ok := c.Exit(); !ok || e.Reason != vmm.ReasonCrashed || !strings.Contains(e.Detail, "killed") {
		t.Errorf("ended with %+v, %v", e, ok)
	}
	noSockets(t, dir)
}

// TERM is how a host that shuts down asks.
func TestKeeperTerminated(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := launch(t, dir, config(t, new(testkernel.Program).Halt()))
	s, err := c.State(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, c)
	if e, ok := c.Exit(); !ok || e.Reason != vmm.ReasonKilled {
		t.Errorf("ended with %+v, %v", e, ok)
	}
	noSockets(t, dir)
}

func TestLaunchFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Config)
		kind   api.Kind
		hint   bool
	}{
		"no QEMU":   {func(c *Config) { c.QEMUBinary = "/nonexistent/qemu" }, api.KindUnavailable, true},
		"no kernel": {func(c *Config) { c.Spec.Kernel = "/nonexistent/kernel" }, api.KindUnavailable, false},
		"no driver": {func(c *Config) { c.Driver = "bochs" }, api.KindUnsupported, false},
		"no sense":  {func(c *Config) { c.Spec.VCPUs = 0 }, api.KindInvalid, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			cfg := config(t, new(testkernel.Program).Halt())
			c.change(&cfg)
			k, err := Launch(limit(t), os.Args[0], dir, cfg)
			if api.KindOf(err) != c.kind || k != nil {
				t.Errorf("got %v (%s)", err, api.KindOf(err))
			}
			if err != nil && c.hint && api.AsError(err).Hint == "" {
				t.Error("no hint")
			}
			noSockets(t, dir)
		})
	}
	t.Run("no program", func(t *testing.T) {
		t.Parallel()
		if _, err := Launch(limit(t), "/nonexistent/banger", newDir(t), Config{}); err == nil {
			t.Error("launched")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Launch(ctx, os.Args[0], newDir(t), config(t, new(testkernel.Program).Halt())); api.KindOf(err) != api.KindCancelled {
			t.Errorf("got %v", err)
		}
	})
}

// A guest that floods its console costs two log files and nothing else.
func TestFlood(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	cfg := config(t, new(testkernel.Program).Print(strings.Repeat("flood ", 100)+"\n").Forever())
	cfg.ConsoleBytes = 64 << 10
	c := launch(t, dir, cfg)
	deadline := time.Now().Add(patience)
	for {
		if _, err := os.Stat(dir.ConsoleLog() + ".1"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the console log is not rotated")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := c.State(limit(t)); err != nil {
		t.Errorf("the keeper does not answer: %v", err)
	}
	if err := c.Kill(limit(t)); err != nil {
		t.Error(err)
	}
	awaitDone(t, c)
	for _, path := range []string{dir.ConsoleLog(), dir.ConsoleLog() + ".1"} {
		if fi, err := os.Stat(path); err != nil || fi.Size() > cfg.ConsoleBytes {
			t.Errorf("%s: %v, %v", path, fi, err)
		}
	}
}

// Garbage on the keeper's socket, and connections that say nothing.
func TestGarbage(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := launch(t, dir, config(t, new(testkernel.Program).Halt()))
	for _, text := range []string{"\x00\xff\x00", "GET / HTTP/1.1\r\n\r\n", "POST /v1/resize HTTP/1.1\r\nHost: k\r\nContent-Length: 3\r\n\r\n{{{", strings.Repeat("A", 1<<20), ""} {
		conn, err := net.Dial("unix", dir.KeeperSocket())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, text) // it may be cut off
	}
	for range 200 {
		conn, err := net.Dial("unix", dir.GuestSocket())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if s, err := c.State(limit(t)); err != nil || s.Phase != PhaseRunning {
		t.Errorf("state %+v, %v", s, err)
	}
}

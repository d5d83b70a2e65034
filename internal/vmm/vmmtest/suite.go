package vmmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestlink"
	"github.com/bangervm/banger/internal/vmm"
)

// patience bounds every wait: generous, as emulation on a busy host is slow.
const patience = 3 * time.Minute

// Run runs the suite. newDriver makes the driver under test; spec makes the
// description of a fresh machine with folders and disks of its own.
func Run(t *testing.T, newDriver func(t *testing.T) vmm.Driver, spec func(t *testing.T) vmm.Spec) {
	s := suite{newDriver, spec}
	for _, c := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"CheckFindsTheProgram", s.check},
		{"StartRefusesNonsense", s.nonsense},
		{"StartCancelledLeavesNothing", s.cancelled},
		{"GuestAnswers", s.answers},
		{"ManyStreams", s.streams},
		{"ShutdownIsPowerOff", s.shutdown},
		{"PowerButtonIsPowerOff", s.powerButton},
		{"PauseAndResume", s.pause},
		{"KillEndsAtOnce", s.kill},
		{"TwoMachines", s.two},
		{"SlowConsoleStopsNothing", s.slowConsole},
		{"VMMKilledByOthers", s.killedByOthers},
		{"DisksKeepTheirLimits", s.limits},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t) })
	}
}

type suite struct {
	newDriver func(t *testing.T) vmm.Driver
	spec      func(t *testing.T) vmm.Spec
}

func (s suite) check(t *testing.T) {
	d := s.newDriver(t)
	v, err := d.Check(t.Context())
	if err != nil || v.Text == "" {
		t.Errorf("Check gives %+v, %v", v, err)
	}
	if d.Name() == "" {
		t.Error("the driver has no name")
	}
}

func (s suite) nonsense(t *testing.T) {
	d := s.newDriver(t)
	spec := s.spec(t)
	spec.VCPUs = 0
	if m, err := d.Start(t.Context(), spec, io.Discard); api.KindOf(err) != api.KindInvalid || m != nil {
		t.Errorf("no processors: %v", err)
	}
	spec = s.spec(t)
	spec.Disks = append(spec.Disks, vmm.Disk{Path: "/nonexistent/disk", Serial: "none"})
	if m, err := d.Start(t.Context(), spec, io.Discard); err == nil {
		m.Kill()
		t.Error("a machine whose disk does not exist was started")
	}
	empty(t, spec)
}

func (s suite) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec := s.spec(t)
	if m, err := s.newDriver(t).Start(ctx, spec, io.Discard); err == nil {
		m.Kill()
		t.Error("started although cancelled")
	}
	empty(t, spec)
}

func (s suite) answers(t *testing.T) {
	var console screen
	m, g := s.start(t, s.spec(t), &console)
	if m.PID() <= 0 {
		t.Errorf("PID %d", m.PID())
	}
	select {
	case <-m.Done():
		t.Error("Done although it runs")
	default:
	}
	if _, err := g.Health(limit(t)); err != nil {
		t.Errorf("asked again: %v", err)
	}
	if out := run(t, g, "sh", "-c", "echo hello"); out != "hello\n" {
		t.Errorf("a command printed %q", out)
	}
}

func (s suite) streams(t *testing.T) {
	m, g := s.start(t, s.spec(t), io.Discard)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			word := fmt.Sprint("stream ", i)
			if out := run(t, g, "echo", word); out != word+"\n" {
				t.Errorf("%s printed %q", word, out)
			}
		})
	}
	wg.Wait()
	// A stream that is closed midway disturbs no other.
	c, err := m.DialGuest(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "POST /v1/exec HT")
	c.Close()
	if _, err := g.Health(limit(t)); err != nil {
		t.Error(err)
	}
}

func (s suite) shutdown(t *testing.T) {
	spec := s.spec(t)
	m, g := s.start(t, spec, io.Discard)
	if _, err := g.Shutdown(limit(t), guestapi.Shutdown{GraceMS: 1000}); err != nil {
		t.Error(err)
	}
	if e := end(t, m); e.Reason != vmm.ReasonPowerOff || e.At.IsZero() {
		t.Errorf("ended with %+v", e)
	}
	over(t, m)
	empty(t, spec)
}

func (s suite) powerButton(t *testing.T) {
	d := s.newDriver(t)
	if !d.Capabilities().PowerButton {
		t.Skip("not a capability of this driver")
	}
	m, _ := s.start(t, s.spec(t), io.Discard)
	if err := m.PowerButton(limit(t)); err != nil {
		t.Error(err)
	}
	if e := end(t, m); e.Reason != vmm.ReasonPowerOff {
		t.Errorf("ended with %+v", e)
	}
}

func (s suite) pause(t *testing.T) {
	if !s.newDriver(t).Capabilities().Pause {
		t.Skip("not a capability of this driver")
	}
	m, g := s.start(t, s.spec(t), io.Discard)
	for range 2 { // the second time there is nothing to do
		if err := m.Pause(limit(t)); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	_, err := g.Health(short)
	cancel()
	if err == nil {
		t.Error("a paused guest answered")
	}
	for range 2 {
		if err := m.Resume(limit(t)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Health(limit(t)); err != nil {
		t.Errorf("resumed: %v", err)
	}
}

func (s suite) kill(t *testing.T) {
	spec := s.spec(t)
	m, _ := s.start(t, spec, io.Discard)
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
	if e := end(t, m); e.Reason != vmm.ReasonKilled {
		t.Errorf("ended with %+v", e)
	}
	over(t, m)
	empty(t, spec)
}

func (s suite) two(t *testing.T) {
	a, ga := s.start(t, s.spec(t), io.Discard)
	_, gb := s.start(t, s.spec(t), io.Discard)
	if err := a.Kill(); err != nil {
		t.Error(err)
	}
	end(t, a)
	if _, err := gb.Health(limit(t)); err != nil {
		t.Errorf("the other machine: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := ga.Health(ctx); err == nil {
		t.Error("a killed machine answered")
	}
}

func (s suite) slowConsole(t *testing.T) {
	stuck := blocked{make(chan struct{})}
	defer close(stuck.free)
	m, g := s.start(t, s.spec(t), stuck)
	if out := run(t, g, "echo", "on"); out != "on\n" {
		t.Errorf("a command printed %q", out)
	}
	m.Kill()
	end(t, m)
}

func (s suite) killedByOthers(t *testing.T) {
	m, _ := s.start(t, s.spec(t), io.Discard)
	if m.PID() == os.Getpid() {
		t.Skip("no process of its own")
	}
	p, err := os.FindProcess(m.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := end(t, m); e.Reason != vmm.ReasonCrashed || e.Detail == "" {
		t.Errorf("ended with %+v", e)
	}
}

// limits are kept for bytes and for operations. Only lower bounds are checked, with
// room: what two seconds allow may come at once, and a slow host is slower.
func (s suite) limits(t *testing.T) {
	d := s.newDriver(t)
	spec := s.spec(t)
	spec.Limits = vmm.Limits{DiskBytesPerSecond: 8 << 20, DiskOperationsPerSecond: 250}
	if !d.Capabilities().Limits {
		if m, err := d.Start(t.Context(), spec, io.Discard); api.KindOf(err) != api.KindUnsupported || m != nil {
			t.Errorf("limits that it cannot keep: %v", err)
		}
		return
	}
	_, g := s.start(t, spec, io.Discard)
	for what, dd := range map[string][]string{
		"48 MiB read of the root disk":       {"if=/dev/vda", "of=/dev/null", "bs=1M", "count=48", "iflag=direct"},
		"1500 reads of the root disk":        {"if=/dev/vda", "of=/dev/null", "bs=4K", "count=1500", "iflag=direct"},
		"48 MiB written through the overlay": {"if=/dev/zero", "of=/limits", "bs=1M", "count=48", "oflag=direct"},
	} {
		began := time.Now()
		run(t, g, append([]string{"dd", "status=none"}, dd...)...)
		took := time.Since(began)
		t.Logf("%s took %s", what, took.Round(time.Millisecond))
		if took < 3*time.Second { // four at least
			t.Errorf("%s took %s", what, took)
		}
	}
}

// start starts a machine, waits for its agent, and kills it after the test.
func (s suite) start(t *testing.T, spec vmm.Spec, console io.Writer) (vmm.Machine, *guestlink.Client) {
	t.Helper()
	var said screen
	m, err := s.newDriver(t).Start(limit(t), spec, both{&said, console})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console of %s, its end:\n%s", spec.ID, said.end())
		}
		m.Kill() // it may have ended
		<-m.Done()
	})
	g := guestlink.NewClient(m.DialGuest, nil)
	if h, err := g.Health(limit(t)); err != nil || h.Protocol != guestapi.Protocol {
		t.Fatalf("the agent: %+v, %v", h, err)
	}
	return m, g
}

func end(t *testing.T, m vmm.Machine) vmm.Exit {
	t.Helper()
	select {
	case <-m.Done():
		return m.Exit()
	case <-limit(t).Done():
		t.Fatal("the machine does not end")
		return vmm.Exit{}
	}
}

// over checks that every verb is refused after the end.
func over(t *testing.T, m vmm.Machine) {
	t.Helper()
	ctx := limit(t)
	_, dial := m.DialGuest(ctx)
	for verb, err := range map[string]error{
		"DialGuest": dial, "PowerButton": m.PowerButton(ctx), "Pause": m.Pause(ctx), "Resume": m.Resume(ctx), "Kill": m.Kill(),
	} {
		if api.KindOf(err) != api.KindBadState {
			t.Errorf("%s after the end: %v", verb, err)
		}
	}
}

// empty checks that no socket is left.
func empty(t *testing.T, spec vmm.Spec) {
	t.Helper()
	entries, err := os.ReadDir(spec.RunDir)
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeSocket != 0 {
			t.Errorf("socket %s is left", e.Name())
		}
	}
}

// run runs a command and gives what it printed.
func run(t *testing.T, g *guestlink.Client, argv ...string) string {
	t.Helper()
	s, err := g.Exec(limit(t), guestapi.ExecRequest{Argv: argv, NoStdin: true}, guestlink.ExecOptions{})
	if err != nil {
		t.Error(err)
		return ""
	}
	defer s.Close()
	var out bytes.Buffer
	for {
		channel, payload, err := s.Recv()
		if err != nil {
			t.Errorf("%v ended early: %v", argv, err)
			return out.String()
		}
		switch channel {
		case guestapi.ChannelStdout:
			out.Write(payload)
		case guestapi.ChannelExit:
			var e guestapi.Exit
			if err := json.Unmarshal(payload, &e); err != nil || e.Code != 0 {
				t.Errorf("%v ended with %+v, %v", argv, e, err)
			}
			return out.String()
		}
	}
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// screen is a console that keeps what it is given.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) end() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes()[max(0, s.b.Len()-8<<10):])
}

// both is a console that is kept and handed on; the keeping comes first, so that
// a console that takes nothing hides nothing.
type both struct {
	kept *screen
	to   io.Writer
}

func (b both) Write(p []byte) (int, error) {
	_, _ = b.kept.Write(p)
	return b.to.Write(p)
}

// blocked is a console that takes nothing until it is freed.
type blocked struct{ free chan struct{} }

func (b blocked) Write(p []byte) (int, error) {
	<-b.free
	return len(p), nil
}

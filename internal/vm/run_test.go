package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// client is the far end of a Stream.
type client struct {
	in  chan frame
	mu  sync.Mutex
	out map[api.Channel]*bytes.Buffer

	gone    chan struct{}
	hangup  func()
	started chan struct{}
	exit    *api.Exit
	last    api.Channel
	log     []byte
}

func newClient() *client {
	c := &client{in: make(chan frame, 1024), out: map[api.Channel]*bytes.Buffer{}, gone: make(chan struct{}), started: make(chan struct{})}
	c.hangup = sync.OnceFunc(func() { close(c.gone) })
	return c
}

func (c *client) Recv(ctx context.Context) (api.Channel, []byte, error) {
	select {
	case f := <-c.in:
		return f.channel, f.payload, nil
	default:
	}
	select {
	case f := <-c.in:
		return f.channel, f.payload, nil
	case <-c.gone:
		return 0, nil, io.EOF
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

func (c *client) Send(_ context.Context, ch api.Channel, p []byte) error {
	select {
	case <-c.gone:
		return io.ErrClosedPipe
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = ch
	if c.out[ch] == nil {
		c.out[ch] = &bytes.Buffer{}
	}
	c.out[ch].Write(p)
	switch ch {
	case api.ChannelStarted:
		close(c.started)
	case api.ChannelExit:
		c.exit = &api.Exit{}
		return json.Unmarshal(p, c.exit)
	}
	return nil
}

func (c *client) text(ch api.Channel) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out[ch] == nil {
		return ""
	}
	return c.out[ch].String()
}

func sh(script string) api.Exec { return api.Exec{Argv: []string{"/bin/sh", "-c", script}} }

func TestExec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	c := newClient()
	c.in <- frame{api.ChannelStdin, []byte("data")}
	c.in <- frame{api.ChannelStdin, nil}
	if err := w.m.Exec(bg, "web", sh("cat; echo err >&2; exit 7"), c); err != nil {
		t.Fatal(err)
	}
	if c.text(api.ChannelStdout) != "data" || c.text(api.ChannelStderr) != "err\n" || c.exit == nil || c.exit.Code != 7 || c.last != api.ChannelExit {
		t.Errorf("stdout %q stderr %q exit %+v", c.text(api.ChannelStdout), c.text(api.ChannelStderr), c.exit)
	}
	var s api.Started
	if err := json.Unmarshal([]byte(c.text(api.ChannelStarted)), &s); err != nil || s.VM != v.ID || s.PID == 0 {
		t.Errorf("started %+v %v", s, err)
	}
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if v := w.show("web"); v.LastUsedAt == nil {
		t.Error("never used")
	}
	err := w.m.Exec(bg, "web", sh("true"), newClient())
	if e := api.AsError(err); e == nil || e.Kind != api.KindBadState || e.Hint != "banger vm start web" {
		t.Errorf("exec in a stopped vm: %v", err)
	}
	ask := sh("exit 3")
	ask.Start = true
	c = newClient()
	if err := w.m.Exec(bg, "web", ask, c); err != nil || c.exit == nil || c.exit.Code != 3 || c.text(api.ChannelProgress) == "" {
		t.Errorf("exec with start: %v %+v", err, c.exit)
	}
}

// Much data goes both ways at once, through the credits.
func TestExecBulk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("web")
	c := newClient()
	const total = 8 << 20
	go func() {
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for sent := 0; sent < total; sent += len(chunk) {
			for sent-credit(c) > (1<<20)-len(chunk) {
				time.Sleep(time.Millisecond)
			}
			c.in <- frame{api.ChannelStdin, chunk}
		}
		c.in <- frame{api.ChannelStdin, nil}
	}()
	if err := w.m.Exec(bg, "web", api.Exec{Argv: []string{"/bin/cat"}}, c); err != nil {
		t.Fatal(err)
	}
	if n := len(c.text(api.ChannelStdout)); n != total {
		t.Errorf("%d bytes of %d", n, total)
	}
}

func credit(c *client) int {
	b := []byte(c.text(api.ChannelCredit))
	n := 0
	for ; len(b) >= 4; b = b[4:] {
		n += int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	}
	return n
}

func TestExecWhoseVMEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	c := newClient()
	go func() {
		<-c.started
		w.ks.get(v.ID).die()
	}()
	err := w.m.Exec(bg, "web", sh("sleep 60"), c)
	if err == nil || !strings.Contains(err.Error(), "keeper died") {
		t.Errorf("%v", err)
	}
}

// A command whose VM is taken away under it says what became of the VM, with a
// hint only where something is left to look at; one whose daemon leaves is no
// cancelled one: it began.
func TestCommandCutOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, end string
		cut       func(w *world, leave context.CancelCauseFunc)
		kind      api.Kind
		says      string
		hint      string
	}{
		{"killed", api.EndStop, func(w *world, _ context.CancelCauseFunc) { _, _ = w.m.Kill(bg, "web", api.KillVM{}) }, api.KindGuest, "it was killed", "banger vm show web"},
		{"killed and removed", api.EndRemove, func(w *world, _ context.CancelCauseFunc) { _, _ = w.m.Kill(bg, "web", api.KillVM{}) }, api.KindGuest, "it was killed", ""},
		{"deleted", api.EndStop, func(w *world, _ context.CancelCauseFunc) { _, _ = w.m.Delete(bg, "web", true) }, api.KindGuest, "it was deleted", ""},
		{"daemon leaves", api.EndKeep, func(_ *world, leave context.CancelCauseFunc) {
			leave(api.Errorf(api.KindUnavailable, "the daemon is stopping").WithHint("banger daemon status"))
		}, api.KindUnavailable, "the daemon is stopping", "banger daemon status"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := newClient()
			ctx, leave := context.WithCancelCause(bg)
			defer leave(nil)
			go func() {
				<-c.started
				w.eventually("running", func() bool { return w.show("web").Status == api.StatusRunning })
				tt.cut(w, leave)
			}()
			req := api.Run{VM: api.CreateVM{Name: "web", AutoRemove: tt.end == api.EndRemove}, Exec: sh("sleep 60"), End: tt.end}
			e := api.AsError(w.m.Run(ctx, req, c))
			if e == nil || e.Kind != tt.kind || !strings.HasSuffix(e.Message, tt.says) || e.Hint != tt.hint {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestExecClientGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("web")
	c := newClient()
	go func() { <-c.started; c.hangup() }()
	begin := time.Now()
	if err := w.m.Exec(bg, "web", sh("sleep 60"), c); err == nil {
		t.Error("no error")
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("took %s", d)
	}
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ end, vm string }{{api.EndKeep, "running"}, {api.EndStop, "stopped"}, {api.EndRemove, "removed"}} {
		t.Run(tt.end, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := newClient()
			err := w.m.Run(bg, api.Run{VM: api.CreateVM{Name: "web"}, Exec: sh("echo hi; exit 7"), End: tt.end}, c)
			if err != nil {
				t.Fatal(err)
			}
			if c.text(api.ChannelStdout) != "hi\n" || c.exit.Code != 7 || c.exit.VM != tt.vm || c.exit.Name != "web" {
				t.Errorf("%q %+v", c.text(api.ChannelStdout), c.exit)
			}
			if tt.end == api.EndRemove {
				w.nothingLeft()
				return
			}
			v := w.show("web")
			if string(v.Status) != tt.vm || v.ExitCode == nil || *v.ExitCode != 7 || v.Error != nil {
				t.Errorf("%+v", v)
			}
			if rec, err := w.db.VM(bg, v.ID); err != nil || rec.End != "" {
				t.Errorf("end %q %v", rec.End, err)
			}
		})
	}
}

// The agent keeps the time of a command; the daemon does where it is silent, which
// is here a daemon that has no patience with it.
func TestTimeOfACommandWhoseAgentIsSilent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.m.times.Overtime = 200*time.Millisecond - time.Hour
	ask := sh("sleep 60")
	ask.TimeoutMS = time.Hour.Milliseconds()
	w.create("web")
	for what, do := range map[string]func() error{
		"exec": func() error { return w.m.Exec(bg, "web", ask, newClient()) },
		"run": func() error {
			return w.m.Run(bg, api.Run{VM: api.CreateVM{Name: "once"}, Exec: ask, End: api.EndRemove}, newClient())
		},
	} {
		begin := time.Now()
		if err := do(); api.KindOf(err) != api.KindTimeout || time.Since(begin) > 20*time.Second {
			t.Errorf("%s: %v after %s", what, err, time.Since(begin))
		}
	}
	if _, err := w.m.Show(bg, "once"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("the machine of the run is still there: %v", err)
	}
}

func TestRunRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.f.set("image", api.Errorf(api.KindNotFound, "no such image"))
	err := w.m.Run(bg, api.Run{VM: api.CreateVM{Name: "web"}, Exec: sh("true"), End: api.EndRemove}, newClient())
	if e := api.AsError(err); e == nil || e.Kind != api.KindNotFound || e.OperationID == "" {
		t.Errorf("%v", err)
	}
	w.nothingLeft()
}

// The client goes away while the VM is in the making: nothing is left.
func TestRunClientGoneBeforeTheCommand(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"image", "mkfs", "booting"} {
		for _, end := range []string{api.EndKeep, api.EndRemove} {
			t.Run(at+" "+end, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				release := w.f.stall(at)
				defer release()
				c := newClient()
				if at == "booting" {
					go func() {
						for w.ks.running() == 0 {
							time.Sleep(time.Millisecond)
						}
						c.hangup()
					}()
				} else {
					time.AfterFunc(20*time.Millisecond, c.hangup)
				}
				if err := w.m.Run(bg, api.Run{VM: api.CreateVM{Name: "web"}, Exec: sh("true"), End: end}, c); err == nil {
					t.Error("no error")
				}
				release()
				w.nothingLeft()
			})
		}
	}
}

// The client goes away while the command runs: HUP, KILL, and the VM ends as
// its record says.
func TestRunClientGoneDuringTheCommand(t *testing.T) {
	t.Parallel()
	// Under nohup the command would ignore HUP as we do: what is caught here is as
	// by default in it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	for _, end := range []string{api.EndKeep, api.EndStop, api.EndRemove} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := newClient()
			file := filepath.Join(t.TempDir(), "hup")
			go func() { // once the trap is set, however slow the host is
				for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
					if _, err := os.Stat(file + ".set"); err == nil {
						break
					}
				}
				c.hangup()
			}()
			script := "trap 'echo got >" + file + "; exit 1' HUP; : >" + file + ".set; while :; do sleep 0.05; done"
			if err := w.m.Run(bg, api.Run{VM: api.CreateVM{Name: "web"}, Exec: sh(script), End: end}, c); err == nil {
				t.Error("no error")
			}
			if b, _ := os.ReadFile(file); string(b) != "got\n" {
				t.Errorf("the command got no HUP: %q", b)
			}
			switch end {
			case api.EndRemove:
				w.nothingLeft()
			case api.EndStop:
				if v := w.show("web"); v.Status != api.StatusStopped {
					t.Errorf("%+v", v)
				}
			default:
				if v := w.show("web"); v.Status != api.StatusRunning {
					t.Errorf("%+v", v)
				}
			}
		})
	}
}

func TestRunWhoseGuestPowersOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newClient()
	go func() {
		<-c.started
		all, _ := w.m.List(bg, nil)
		w.ks.get(all[0].ID).die()
	}()
	err := w.m.Run(bg, api.Run{Exec: sh("sleep 60"), End: api.EndRemove}, c)
	if err == nil || !strings.Contains(err.Error(), "keeper died") {
		t.Errorf("%v", err)
	}
	w.nothingLeft()
}

func TestRunDetached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ask := sh("true")
	ask.Detach = true
	c := newClient()
	if err := w.m.Run(bg, api.Run{VM: api.CreateVM{Name: "web"}, Exec: ask, End: api.EndRemove}, c); err != nil {
		t.Fatal(err)
	}
	v := w.show("web")
	if v.Status != api.StatusRunning || !v.AutoRemove || c.exit.VM != "running" {
		t.Errorf("%+v %+v", v, c.exit)
	}
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	w.eventually("auto-remove", func() bool { all, _ := w.m.List(bg, nil); return len(all) == 0 })
}

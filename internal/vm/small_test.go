package vm

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"a": true, "web": true, "web-1": true, "0": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a_b": false, "a.b": false, "é": false, "a b": false,
		strings.Repeat("a", 64): false, "a/b": false, "..": false, "a\x00": false,
	} {
		if err := checkName(name, ""); (err == nil) != ok || err != nil && api.KindOf(err) != api.KindInvalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"web", "-a", "A B", "", "a\xff", strings.Repeat("x", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkName(s, "") == nil && (safeID(s) != nil || len(s) > maxName) {
			t.Errorf("%q passed", s)
		}
		if got := suggestName(s); got != "" && checkName(got, "") != nil {
			t.Errorf("suggests %q for %q", got, s)
		}
	})
}

func TestChoose(t *testing.T) {
	t.Parallel()
	all := []store.VM{
		{ID: "aaaa000000000001", Name: "web"}, {ID: "aaaa000000000002", Name: "web-2"},
		{ID: "bbbb000000000003", Name: "db"}, {ID: "cccc000000000004", Name: "bbb"},
	}
	for ref, want := range map[string]string{
		"web": "web", "web-": "web-2", "d": "db", "aaaa000000000001": "web", "cccc": "bbb", "bbb": "bbb", "bbbb": "db",
		"we": "invalid", "aaaa": "invalid", "x": "not-found", "": "not-found",
	} {
		got, err := choose(all, ref)
		name := got.Name
		if err != nil {
			name = string(api.KindOf(err))
		}
		if name != want {
			t.Errorf("%q: %s, want %s", ref, name, want)
		}
	}
}

func FuzzChoose(f *testing.F) {
	f.Add("web", "we", "w")
	f.Fuzz(func(t *testing.T, a, b, ref string) {
		v, err := choose([]store.VM{{ID: "1" + a, Name: a}, {ID: "2" + b, Name: b}}, ref)
		if err == nil && !strings.HasPrefix(v.Name, ref) && !strings.HasPrefix(v.ID, ref) {
			t.Errorf("%q gave %+v", ref, v)
		}
	})
}

func TestFilters(t *testing.T) {
	t.Parallel()
	v := api.VM{Name: "web", Status: api.StatusRunning, Labels: map[string]string{"a": "1", "b": "x=y"}}
	for _, tt := range []struct {
		in   string
		want string
	}{
		{"", "yes"}, {"label=a", "yes"}, {"label=a=1", "yes"}, {"label=a=2", "no"}, {"label=b=x=y", "yes"}, {"label=c", "no"},
		{"status=running", "yes"}, {"status=stopped", "no"}, {"status=running,status=stopped", "yes"}, {"name=web", "yes"},
		{"status=happy", "invalid"}, {"status", "invalid"}, {"colour=red", "invalid"}, {"label=", "invalid"},
	} {
		var in []string
		if tt.in != "" {
			in = strings.Split(tt.in, ",")
		}
		got := "no"
		f, err := parseFilters(in)
		switch {
		case err != nil:
			got = string(api.KindOf(err))
		case f.match(v):
			got = "yes"
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, req := range map[string]api.CreateVM{
		"name":       {Name: "Web"},
		"cpus":       {VCPUs: 5},
		"minus cpus": {VCPUs: -1},
		"memory":     {MemoryBytes: 4},
		"too much":   {MemoryBytes: 1 << 50},
		"disk":       {DiskBytes: -1},
		"huge disk":  {DiskBytes: 100 << 40},
		"overlay":    {SystemOverlayBytes: 1},
		"network":    {Network: "carrier-pigeon"},
		"driver":     {Driver: "x"},
		"accel":      {Accelerator: "x"},
		"root disk":  {RootDisk: "x"},
		"init":       {Init: "x"},
		"pull":       {Pull: "x"},
		"env":        {Env: []string{"NOVALUE"}},
		"workdir":    {Workdir: "relative"},
		"label":      {Labels: map[string]string{"a=b": "c"}},
	} {
		if _, err := w.m.Create(bg, req); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.nothingLeft()
}

func TestImageEnv(t *testing.T) {
	t.Parallel()
	got := imageEnv([]string{"PATH=/x", "HOME=/nowhere", "TERM=dumb", "IS_SANDBOX=0", "A=b=c"})
	if d := cmp.Diff([]string{"PATH=/x", "A=b=c"}, got); d != "" {
		t.Error(d)
	}
}

func TestGuestConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.m.newRecord(createParams{ID: "id", Request: w.m.fill(api.CreateVM{Name: "web", Env: []string{"IMG=2"}, Workdir: "/srv"})}, w.im.image(), mustKernel())
	spec := w.m.spec(rec, w.l.VM("id"), w.im.root, Choice{Accelerator: "tcg", Transport: "vsock"})
	c, err := w.m.guestConfig(bg, rec, spec, "token")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"PATH=/image/bin:/usr/bin:/bin", "IMG=1", "IMG=2"}, c.Env); d != "" {
		t.Error(d)
	}
	for i, d := range c.Disks {
		if spec.Disks[i].Serial != d.Serial || d.Index != i {
			t.Errorf("disk %d: %+v %+v", i, spec.Disks[i], d)
		}
	}
	if c.Workdir != "/srv" || c.Hostname != "web" || len(c.Seed) == 0 || c.Network.Mode != "user" || spec.Network == nil || spec.Accelerator != "tcg" || spec.Transport != "vsock" {
		t.Errorf("%+v", c)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	two, less, more := 2, int64(512<<20), int64(2<<30)
	got, err := w.m.Set(bg, "web", api.SetVM{VCPUs: &two, DiskBytes: &more, Labels: map[string]string{"a": "b"}})
	if err != nil || !got.Changed || got.VCPUs != 2 || got.Labels["a"] != "b" {
		t.Fatalf("%+v %v", got, err)
	}
	if d := cmp.Diff([]string{"vcpus", "disk_bytes"}, got.Pending); d != "" {
		t.Error(d)
	}
	if got, err = w.m.Set(bg, "web", api.SetVM{VCPUs: &two}); err != nil || got.Changed {
		t.Errorf("again: %+v %v", got, err)
	}
	_, err = w.m.Set(bg, "web", api.SetVM{DiskBytes: &less})
	if err == nil || !strings.Contains(err.Error(), "shrink") {
		t.Errorf("shrink: %v", err)
	}
	w.must(w.m.Restart(bg, "web"))
	if v := w.show("web"); len(v.Pending) != 0 || size(w.l.VM(v.ID).WorkDisk()) != more {
		t.Errorf("%+v", v)
	}
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	w.f.set("tool e2fsck", api.Errorf(api.KindUnavailable, "e2fsck is missing"))
	w.f.set("tool resize2fs", api.Errorf(api.KindUnavailable, "resize2fs is missing"))
	_, err = w.m.Set(bg, "web", api.SetVM{SystemOverlayBytes: &more})
	if err == nil || !strings.Contains(err.Error(), "e2fsck is missing; resize2fs is missing") {
		t.Errorf("%v", err)
	}
	w.f.set("tool e2fsck", nil)
	w.f.set("tool resize2fs", nil)
	if _, err = w.m.Set(bg, "web", api.SetVM{SystemOverlayBytes: &more, Labels: map[string]string{"a": ""}}); err != nil {
		t.Fatal(err)
	}
	if v := w.show("web"); size(w.l.VM(v.ID).SystemDisk()) != more || len(v.Labels) != 0 {
		t.Errorf("%+v", v)
	}
	_ = v
}

func TestSetGrowsOnline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ks.online = true
	v := w.create("web")
	more := int64(2 << 30)
	got, err := w.m.Set(bg, "web", api.SetVM{DiskBytes: &more})
	if err != nil || len(got.Pending) != 0 || size(w.l.VM(v.ID).WorkDisk()) != more {
		t.Errorf("%+v %v", got, err)
	}
	w.f.set("guest grow", errFault)
	more = 3 << 30
	if _, err := w.m.Set(bg, "web", api.SetVM{DiskBytes: &more}); err == nil {
		t.Error("the guest's failure went unseen")
	}
}

// A VMM that hangs while a disk grows is not waited for for ever, with the machine
// locked against who wants to stop it.
func TestSetOfAMachineThatHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ks.online, w.ks.hangs = true, true
	w.m.times.Grow = 50 * time.Millisecond
	w.create("web")
	more := int64(2 << 30)
	_, err := w.m.Set(bg, "web", api.SetVM{DiskBytes: &more})
	if e := api.AsError(err); e.Kind != api.KindTimeout || !strings.Contains(e.Hint, "banger vm stop ") {
		t.Errorf("%+v", e)
	}
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if got := w.show("web"); got.Status != api.StatusStopped {
		t.Errorf("it is %s", got.Status)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("runs")
	for _, n := range []string{"a", "b"} {
		w.must(w.m.Create(bg, api.CreateVM{Name: n, NoStart: true, Labels: map[string]string{"k": n}}))
	}
	got, err := w.m.Prune(bg, api.PruneVMs{DryRun: true})
	if err != nil || len(got) != 2 || got[0].Changed {
		t.Errorf("%+v %v", got, err)
	}
	if got, err = w.m.Prune(bg, api.PruneVMs{StoppedForMS: 3_600_000}); err != nil || len(got) != 0 {
		t.Errorf("%+v %v", got, err)
	}
	if got, err = w.m.Prune(bg, api.PruneVMs{Filters: []string{"label=k=a"}}); err != nil || len(got) != 1 || got[0].Ref != "a" || !got[0].Changed {
		t.Errorf("%+v %v", got, err)
	}
	if all, _ := w.m.List(bg, nil); len(all) != 2 {
		t.Errorf("%+v", all)
	}
}

func TestLogText(t *testing.T) {
	t.Parallel()
	text := "[    0.1] old\nplain\n[    9.0] old\n[    0.1] one\n[    1.0] two\nafter two\n[    2.5] three\n"
	start := time.Unix(1000, 0)
	rec := store.VM{StartedAt: &start}
	for _, tt := range []struct {
		since time.Time
		tail  int
		want  string
	}{
		{time.Time{}, -1, text},
		{time.Time{}, 1, "[    2.5] three\n"},
		{time.Time{}, 2, "after two\n[    2.5] three\n"},
		{time.Time{}, 0, ""},
		{start.Add(-time.Hour), -1, text[strings.Index(text, "[    0.1] one"):]},
		{start.Add(time.Second), -1, text[strings.Index(text, "[    1.0] two"):]},
		{start.Add(time.Hour), -1, ""},
	} {
		if got := string(tail(since([]byte(text), rec, tt.since, start.Add(time.Minute)), tt.tail)); got != tt.want {
			t.Errorf("since %v tail %d: %q, want %q", tt.since, tt.tail, got, tt.want)
		}
	}
}

// What a program writes carries no clock: at the end of the log it is shown when
// the log was written to since.
func TestLogTextWithoutAClockAtTheEnd(t *testing.T) {
	t.Parallel()
	text := "[    0.1] one\nplain\n[    1.0] two\nlate\nlater\n"
	start := time.Unix(1000, 0)
	rec := store.VM{StartedAt: &start}
	for after, want := range map[time.Duration]string{
		time.Second:      "[    1.0] two\nlate\nlater\n",
		2 * time.Second:  "late\nlater\n",
		60 * time.Second: "late\nlater\n",
		61 * time.Second: "",
	} {
		if got := string(since([]byte(text), rec, start.Add(after), start.Add(time.Minute))); got != want {
			t.Errorf("%v: %q, want %q", after, got, want)
		}
	}
}

func FuzzLogText(f *testing.F) {
	f.Add([]byte("[    0.1] a\nb\n[ 1]"), int64(3), 2)
	f.Fuzz(func(t *testing.T, b []byte, s int64, n int) {
		start := time.Unix(0, 0)
		out := tail(since(b, store.VM{StartedAt: &start}, time.Unix(s%1e6, 0), time.Unix(5e5, 0)), n)
		if !strings.HasSuffix(string(b), string(out)) {
			t.Errorf("%q is no end of %q", out, b)
		}
		if w := findLastWords(b); len(w) > maxLine+len("…")+8 || strings.ContainsAny(w, "\n\x1b") {
			t.Errorf("last words %q", w)
		}
	})
}

func FuzzExit(f *testing.F) {
	f.Add([]byte(`{"code":1,"signal":"KILL"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := exitOf(b)
		if err == nil && (x.Code < 0 || x.Code > 255 || strings.ContainsAny(x.Signal, "\n\x1b")) {
			t.Errorf("%+v", x)
		}
	})
}

func TestLogsFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create("web")
	path := w.l.VM(v.ID).ConsoleLog()
	write := func(s string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(s)
			_ = f.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	write("one\n")
	got := &client{}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(bg, 20*time.Second)
	defer cancel()
	go func() { done <- w.m.Logs(ctx, "web", LogOptions{Follow: true, Tail: -1}, logWriter{got}) }()
	w.eventually("one", func() bool { return got.logged() == "one\n" })
	write("two\n")
	w.eventually("two", func() bool { return got.logged() == "one\ntwo\n" })
	write("three\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("four\n")
	w.eventually("four", func() bool { return got.logged() == "one\ntwo\nthree\nfour\n" })
	w.must(w.m.Stop(bg, "web", api.StopVM{}))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// logWriter collects what Logs writes.
type logWriter struct{ c *client }

func (l logWriter) Write(b []byte) (int, error) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.log = append(l.c.log, b...)
	return len(b), nil
}

func (c *client) logged() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.log)
}

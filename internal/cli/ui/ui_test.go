package ui

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

var update = flag.Bool("update", false, "write testdata")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func things() []api.Image {
	return []api.Image{
		{Name: "debian-bookworm", Kind: "debian", SizeBytes: 3 << 29, UsedBy: []string{"web"}, Config: api.ImageConfig{Env: []string{"A=<b>"}}},
		{Name: "längé", Kind: "oci", SizeBytes: 512},
	}
}

func sample(c *Console) error {
	t := NewTable("NAME", "KIND", "SIZE", "USED BY")
	for _, im := range things() {
		t.Row(im.Name, Cell{im.Kind, Good}, Bytes(im.SizeBytes), strings.Join(im.UsedBy, " "))
	}
	t.Row("evil\x1b[2J\nname", Cell{"x", Bad}, "", "")
	if err := c.Table(t); err != nil {
		return err
	}
	return c.Fields([][2]string{{"name", "web"}, {"labels", ""}, {"created at", "now\r"}})
}

func TestRendering(t *testing.T) {
	t.Parallel()
	withHint := api.Errorf(api.KindInvalid, "vm \"w\" is ambiguous").WithHint("banger vm list")
	withHint.Candidates = []string{"web", "wiki"}
	named := api.Errorf(api.KindBadState, "cannot delete image \"app\": VMs use it: web, wiki").WithHint("banger vm list")
	named.Candidates = withHint.Candidates
	half := api.Errorf(api.KindBadState, "cannot delete image \"app\": VMs use it: web-1, wiki")
	half.Candidates = withHint.Candidates
	tests := map[string]func(c *Console) error{
		"table.txt":          sample,
		"table-colour.txt":   func(c *Console) error { c.OutTTY = true; return sample(c) },
		"table-no-color.txt": func(c *Console) error { c.OutTTY, c.NoColor = true, true; return sample(c) },
		"empty.txt":          func(c *Console) error { return c.Table(NewTable("NAME", "STATUS")) },
		"list.json":          func(c *Console) error { c.JSON = true; return c.Answer(things(), nil) },
		"none.json":          func(c *Console) error { c.JSON = true; return c.Answer([]api.VM(nil), nil) },
		"line.json": func(c *Console) error {
			c.JSON = true
			return c.Line(map[string]string{"a": "<&>"}, nil)
		},
		"format.txt": func(c *Console) error {
			c.Format = `{{.name}} {{.size_bytes}} {{json .config.env}} {{if .used_by}}{{join "," .used_by}}{{end}}`
			return c.Answer(things(), nil)
		},
		"error.txt":        func(c *Console) error { c.Error(withHint, false, false); return nil },
		"error-named.txt":  func(c *Console) error { c.Error(named, false, false); return nil },
		"error-half.txt":   func(c *Console) error { c.Error(half, false, false); return nil },
		"error-kind.txt":   func(c *Console) error { c.Error(withHint, false, true); return nil },
		"error-colour.txt": func(c *Console) error { c.ErrTTY = true; c.Error(withHint, false, true); return nil },
		"error.json":       func(c *Console) error { c.Error(withHint, true, true); return nil },
		"error-plain.json": func(c *Console) error { c.Error(errors.New("a\nb"), true, false); return nil },
		"error-hostile.txt": func(c *Console) error {
			c.Error(api.Errorf(api.KindGuest, "a\x1b]0;x\x07\nb"), false, false)
			return nil
		},
	}
	for name, draw := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := draw(&Console{Out: &out, Err: &out}); err != nil {
				t.Fatal(err)
			}
			golden(t, name, out.String())
		})
	}
}

func TestFormatErrors(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"{{", "{{.nope}}", "{{call .name}}"} {
		c := &Console{Out: &bytes.Buffer{}, Format: format}
		if err := c.Answer(things(), nil); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%q: %v", format, err)
		}
	}
}

func TestAmounts(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{-1: "-", 0: "0B", 1: "1B", 1023: "1023B", 1024: "1K", 1536: "1.5K", 512 << 20: "512M", 3 << 29: "1.5G", 8 << 30: "8G", 1<<40 - 1: "1T", 1 << 62: "4096P"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-1: "0s", time.Second: "1s", 119 * time.Second: "119s", 3 * time.Minute: "3m", 47 * time.Hour: "47h", 50 * time.Hour: "2d"} {
		if got := Short(d); got != want {
			t.Errorf("Short(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{400 * time.Millisecond: "0.4s", 12 * time.Second: "12s", 125 * time.Second: "2m05s"} {
		if got := Elapsed(d); got != want {
			t.Errorf("Elapsed(%v) = %q, want %q", d, got, want)
		}
	}
	for _, tt := range []struct {
		p    api.Progress
		want string
	}{
		{api.Progress{}, ""},
		{api.Progress{Done: 12 << 20, Total: 40 << 20, Unit: "bytes"}, "12M/40M (30%)"},
		{api.Progress{Done: 5, Total: 12, Unit: "items"}, "5/12 (41%)"},
		{api.Progress{Done: 7, Unit: "items"}, "7 items"},
		{api.Progress{Done: 20, Total: 10}, "20/10 (100%)"},
		{api.Progress{Done: 1 << 62, Total: 1 << 62}, fmt.Sprintf("%d/%d (100%%)", int64(1<<62), int64(1<<62))},
	} {
		if got := Amount(tt.p); got != tt.want {
			t.Errorf("Amount(%+v) = %q, want %q", tt.p, got, tt.want)
		}
	}
}

// TestPlainProgress: nothing for what is quick, a line at each stage, and one at
// least every ten seconds within a stage.
func TestPlainProgress(t *testing.T) {
	t.Parallel()
	begun := time.Unix(1000, 0)
	s := &shown{key: "web", begun: begun, changed: true, op: api.Operation{Stage: "pulling", Progress: api.Progress{Done: 1, Total: 4}}}
	var lines []string
	at := func(d time.Duration) {
		if line, ok := s.plain(begun.Add(d), false); ok {
			lines = append(lines, fmt.Sprintf("%v: %s", d, line))
		}
	}
	for ms := 100; ms <= 20_000; ms += 100 {
		at(time.Duration(ms) * time.Millisecond)
	}
	s.changed, s.op.Stage, s.op.Progress = true, "booting", api.Progress{}
	at(20100 * time.Millisecond)
	s.over = true
	at(60 * time.Second)
	want := []string{
		"700ms: pulling 1/4 (25%)", "8.7s: pulling 1/4 (25%) (8.7s)", "16.7s: pulling 1/4 (25%) (17s)", "20.1s: booting",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestLiveProgress(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &Console{Err: &out, ErrTTY: true, Width: func() int { return 20 }}
	begun := time.Unix(1000, 0)
	p := &Progress{c: c, mode: ProgressAuto, label: true}
	p.ops = []*shown{
		{key: "a", begun: begun, op: api.Operation{Stage: "evil\r\nstage that is far too long"}},
		{key: "b", begun: begun, op: api.Operation{Stage: "x"}},
	}
	p.draw(begun.Add(100 * time.Millisecond))
	if out.Len() != 0 {
		t.Errorf("drew %q at once", out.String())
	}
	p.draw(begun.Add(time.Second))
	c.Note("hello")
	if got, want := out.String(), "\r⠋ a: evil  stage th\x1b[K\r\x1b[Khello\n"; got != want {
		t.Errorf("drew %q, want %q", got, want)
	}
}

func TestProgressModes(t *testing.T) {
	t.Parallel()
	op := api.Operation{ID: "o", Status: api.OperationRunning, Stage: "s"}
	for mode, want := range map[string]string{ProgressNone: "", ProgressAuto: "", ProgressJSON: `{"id":"o"`} {
		var out bytes.Buffer
		c := &Console{Err: &out, Progress: mode}
		p := c.NewProgress(false)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { p.Update("o", op) })
		}
		all.Wait()
		p.Close()
		if !strings.HasPrefix(out.String(), want) || want == "" && out.Len() > 0 {
			t.Errorf("%s: %q", mode, out.String())
		}
	}
}

// failing is a stdout that is full.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestFullStdoutIsAnError(t *testing.T) {
	t.Parallel()
	c := &Console{Out: failing{}, JSON: true}
	if err := c.Answer(1, nil); err == nil {
		t.Error("no error")
	}
	if err := c.Table(NewTable("A")); err == nil {
		t.Error("no error")
	}
}

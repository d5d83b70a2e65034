package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bangervm/banger/api"
)

// How progress is paced. Work that ends within quietFor shows nothing.
const (
	quietFor   = 700 * time.Millisecond
	redrawEach = 100 * time.Millisecond
	plainEach  = 8 * time.Second // a line at least every ten seconds is promised
)

// Progress shows operations while they run. Close ends it and removes what is
// live; it must be called.
type Progress struct {
	c     *Console
	mode  string
	label bool // several operations at once: name the target

	mu  sync.Mutex
	ops []*shown

	stop chan struct{}
	done sync.WaitGroup
}

// shown is one operation as last heard of and as last printed.
type shown struct {
	key     string
	op      api.Operation
	begun   time.Time
	stage   string    // last printed
	at      time.Time // of the last print
	changed bool
	over    bool
}

// NewProgress begins to show progress in the console's mode. With several
// operations at once, each line names its target.
func (c *Console) NewProgress(several bool) *Progress {
	mode := c.Progress
	if mode == "" || mode == ProgressAuto {
		mode = ProgressPlain
		if c.ErrTTY {
			mode = ProgressAuto
		}
		if c.JSON && !c.ErrTTY {
			mode = ProgressPlain
		}
	}
	if c.Quiet && mode != ProgressJSON {
		mode = ProgressNone
	}
	p := &Progress{c: c, mode: mode, label: several, stop: make(chan struct{})}
	if mode == ProgressAuto || mode == ProgressPlain {
		p.done.Add(1)
		go p.loop()
	}
	return p
}

// Update takes note of an operation's state. key tells operations apart and
// names them when there are several.
func (p *Progress) Update(key string, op api.Operation) {
	switch p.mode {
	case ProgressNone:
		return
	case ProgressJSON:
		if b, err := encode(op, ""); err == nil {
			p.c.errLine(strings.TrimSuffix(string(b), "\n"))
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.ops {
		if s.key == key {
			s.changed = s.changed || s.op.Stage != op.Stage
			s.op = op
			s.over = op.Status != api.OperationRunning
			return
		}
	}
	p.ops = append(p.ops, &shown{key: key, op: op, begun: time.Now(), changed: true, over: op.Status != api.OperationRunning})
}

// Close ends the display.
func (p *Progress) Close() {
	close(p.stop)
	p.done.Wait()
	p.c.mu.Lock()
	p.c.wipe()
	p.c.mu.Unlock()
}

func (p *Progress) loop() {
	defer p.done.Done()
	t := time.NewTicker(redrawEach)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-t.C:
			p.draw(now)
		}
	}
}

func (p *Progress) draw(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == ProgressPlain {
		for _, s := range p.ops {
			if line, ok := s.plain(now, p.label); ok {
				p.c.errLine(line)
			}
		}
		return
	}
	for _, s := range p.ops {
		if !s.over && now.Sub(s.begun) >= quietFor {
			p.c.liveLine(s.live(now, p.label, p.others(s)))
			return
		}
	}
}

// others counts the operations still running beside s.
func (p *Progress) others(s *shown) int {
	n := 0
	for _, o := range p.ops {
		if o != s && !o.over {
			n++
		}
	}
	return n
}

// plain gives the line to print now, if one is due: at each new stage, and
// every few seconds within one.
func (s *shown) plain(now time.Time, label bool) (string, bool) {
	if s.over || now.Sub(s.begun) < quietFor || !s.changed && now.Sub(s.at) < plainEach {
		return "", false
	}
	first := s.stage != s.op.Stage || s.at.IsZero()
	s.changed, s.stage, s.at = false, s.op.Stage, now
	line := s.text(label)
	if !first {
		line += " (" + Elapsed(now.Sub(s.begun)) + ")"
	}
	return line, true
}

func (s *shown) text(label bool) string {
	text := Clean(s.op.Stage)
	if text == "" {
		text = Clean(s.op.Kind)
	}
	if label {
		text = Clean(s.key) + ": " + text
	}
	if n := Amount(s.op.Progress); n != "" {
		text += " " + n
	}
	return text
}

func (s *shown) live(now time.Time, label bool, others int) string {
	frames := []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	since := now.Sub(s.begun)
	line := frames[int(since/redrawEach)%len(frames)] + " " + s.text(label)
	if others > 0 {
		line += fmt.Sprintf(" and %d more", others)
	}
	return line + " " + Elapsed(since)
}

// Amount is a progress for people: "12M/40M (30%)", "5/12", "7 items".
func Amount(p api.Progress) string {
	show := func(n int64) string {
		if p.Unit == "bytes" {
			return Bytes(n)
		}
		return fmt.Sprint(n)
	}
	switch {
	case p.Total > 0 && p.Done >= 0:
		return fmt.Sprintf("%s/%s (%d%%)", show(p.Done), show(p.Total), int(float64(min(p.Done, p.Total))*100/float64(p.Total)))
	case p.Done > 0 && p.Unit == "items":
		return fmt.Sprintf("%d items", p.Done)
	case p.Done > 0:
		return show(p.Done)
	}
	return ""
}

// liveLine redraws the one live line on stderr.
func (c *Console) liveLine(s string) {
	width := 80
	if c.Width != nil {
		if w := c.Width(); w > 0 {
			width = w
		}
	}
	if n := utf8.RuneCountInString(s); n >= width {
		s = string([]rune(s)[:max(0, width-1)])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	io.WriteString(c.Err, "\r"+s+"\x1b[K")
	c.live = 1
}

package console

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestScanner(t *testing.T) {
	t.Parallel()
	const line = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\r\nCPU: 0\n"
	for name, c := range map[string]struct{ in, want string }{
		"none":      {"hello\nworld\n", ""},
		"panic":     {line, "VFS: Unable to mount root fs"},
		"first":     {line + strings.ReplaceAll(line, "VFS", "other"), "VFS: Unable to mount root fs"},
		"no end":    {"Kernel panic - not syncing: abc", "abc"},
		"escapes":   {"Kernel panic - not syncing: a\x1b[2Jb\xff\n", "a[2Jb"},
		"empty":     {"Kernel panic - not syncing: \n", "no text"},
		"far right": {strings.Repeat("x", 3*maxLine) + line, "VFS: Unable to mount root fs"},
		"long":      {"Kernel panic - not syncing: " + strings.Repeat("abc", maxLine) + "\n", strings.Repeat("abc", maxLine)[:maxLine-len(panicMark)]},
		"split":     {"Kernel panic -\n not syncing: abc\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for size := 1; size <= len(c.in); size += 1 + size/2 {
				var s Scanner
				for p := []byte(c.in); len(p) > 0; {
					n := min(size, len(p))
					s.Write(p[:n])
					p = p[n:]
				}
				if got, ok := s.Panic(); got != c.want || ok != (c.want != "") {
					t.Fatalf("in pieces of %d: %q, %v", size, got, ok)
				}
			}
		})
	}
}

func TestMark(t *testing.T) {
	t.Parallel()
	var got []string
	s := Scanner{Marks: []string{"timer lost", "halted"}, Marked: func(line string) { got = append(got, line) }}
	far := strings.Repeat("x", 2*maxLine)
	for _, p := range []string{far, "timer lost\n", "a timer l", "ost b\nKernel panic - not syncing: x\n", "timer lost\r\n", "halted\n", "timer lost"} {
		s.Write([]byte(p))
	}
	if want := []string{(far + "timer lost")[maxLine+len("timer lost"):], "a timer lost b", "timer lost\r", "halted"}; !slices.Equal(got, want) {
		t.Errorf("marked %q, want %q", got, want)
	}
}

func TestCopy(t *testing.T) {
	t.Parallel()
	in := strings.Repeat("0123456789abcde\n", 8<<10) // half a backlog
	var out bytes.Buffer
	Copy(&out, strings.NewReader(in), new(Scanner))
	if out.String() != in {
		t.Errorf("%d bytes became %d", len(in), out.Len())
	}
}

// gate is a writer that takes nothing before it is opened.
type gate struct {
	bytes.Buffer
	open chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.Buffer.Write(p)
}

func TestCopyLoses(t *testing.T) {
	t.Parallel()
	g := &gate{open: make(chan struct{})}
	in := &opener{r: strings.NewReader(strings.Repeat("x", 4*backlog)), open: g.open}
	Copy(g, in, new(Scanner))
	// What is under way to the gate, what waits, and the line that says how much was lost.
	const most = 2*backlog + 100
	if g.Len() > most || !strings.Contains(g.String(), "bytes of console output lost]") {
		t.Errorf("%d bytes were kept, which end with %.60q", g.Len(), g.String()[max(0, g.Len()-60):])
	}
}

// opener opens the gate when everything was read.
type opener struct {
	r    *strings.Reader
	open chan struct{}
}

func (o *opener) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if err != nil {
		close(o.open)
	}
	return n, err
}

func TestListener(t *testing.T) {
	t.Parallel()
	l := Listen("the word")
	for _, p := range []string{strings.Repeat("x", 3*maxHeard), "\r\nthe w", "ord, and\n", "more\r\n"} {
		select {
		case <-l.Found:
			t.Errorf("found before %q", p)
		default:
		}
		if _, err := l.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		if p == "ord, and\n" {
			break
		}
	}
	<-l.First
	<-l.Found
	if got := l.Last(); got != `"the word, and"` || len(l.heard) > maxHeard {
		t.Errorf("the last line is %s", got)
	}
}

func FuzzScanner(f *testing.F) {
	f.Add([]byte("Kernel panic - not syncing: x\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		s := Scanner{Marks: []string{"lost"}, Marked: func(string) {}}
		for len(b) > 0 {
			n := min(max(size, 1), len(b))
			s.Write(b[:n])
			b = b[n:]
		}
		if text, ok := s.Panic(); ok && (text == "" || len(text) > maxLine) {
			t.Errorf("panic text of %d bytes", len(text))
		}
		if len(s.line) > maxLine {
			t.Errorf("%d bytes of a line kept", len(s.line))
		}
	})
}

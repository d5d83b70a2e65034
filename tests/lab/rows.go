package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

//go:embed rows.json
var rowsFile []byte

// row is one run of a package's tests that must pass in full, real: a fake never
// stands in for one. rows.json lists them.
type row struct {
	// Name tells the row from others: letters, digits, hyphens.
	Name string `json:"name"`
	// Driver, Accelerator and Link are what the table shows of it.
	Driver      string `json:"driver"`
	Accelerator string `json:"accelerator"`
	Link        string `json:"link,omitempty"`
	As          string `json:"as"` // root or dev
	// Host is systemd for a row that is about such a host; else any host will do.
	Host string `json:"host,omitempty"`
	// Package's tests that match Run are run, with Env beside what every
	// command of a lab has.
	Package string            `json:"package"`
	Run     string            `json:"run"`
	Env     map[string]string `json:"env,omitempty"`
	// Passed is how many tests and subtests must pass. Fewer, a failure or a
	// skip fails the row.
	Passed int `json:"passed"`
	// Minutes bounds the row; 10 when not given.
	Minutes int `json:"minutes,omitempty"`
}

// hostSystemd is the Host of rows that need systemd as process 1.
const hostSystemd = "systemd"

func (r row) timeout() time.Duration {
	if r.Minutes == 0 {
		return 10 * time.Minute
	}
	return time.Duration(r.Minutes) * time.Minute
}

// readRows gives the rows whose name matches.
func readRows(data []byte, match string) ([]row, error) {
	pattern, err := regexp.Compile(match)
	if err != nil {
		return nil, fmt.Errorf("-rows %s: %w", match, err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var all, out []row
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("cannot read rows.json: %w", err)
	}
	name := regexp.MustCompile(`^[a-z0-9-]+$`)
	seen := map[string]bool{}
	for _, r := range all {
		switch {
		case !name.MatchString(r.Name) || seen[r.Name]:
			return nil, fmt.Errorf("cannot read rows.json: name %q is taken or no name", r.Name)
		case r.As != "root" && r.As != "dev":
			return nil, fmt.Errorf("cannot read rows.json: row %s runs as %q, which is neither root nor dev", r.Name, r.As)
		case r.Host != "" && r.Host != hostSystemd:
			return nil, fmt.Errorf("cannot read rows.json: row %s wants a host %q, and there is only systemd", r.Name, r.Host)
		case r.Package == "" || r.Passed < 1:
			return nil, fmt.Errorf("cannot read rows.json: row %s names no package or expects nothing to pass", r.Name)
		}
		if _, err := regexp.Compile(r.Run); err != nil {
			return nil, fmt.Errorf("cannot read rows.json: row %s: %w", r.Name, err)
		}
		seen[r.Name] = true
		if pattern.MatchString(r.Name) {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no row matches %q", match)
	}
	return out, nil
}

// packagesOf lists the packages of rows, each once.
func packagesOf(rows []row) []string {
	var out []string
	for _, r := range rows {
		if !slices.Contains(out, r.Package) {
			out = append(out, r.Package)
		}
	}
	return out
}

// result is what came of a row.
type result struct {
	Row     string  `json:"row"`
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Skipped int     `json:"skipped"`
	Seconds float64 `json:"seconds"`
	// Problem is why the row has no whole count: it crashed, ran out of time.
	Problem string `json:"problem,omitempty"`
}

// verdict is empty for a row that is as it must be.
func (r result) verdict(want row) string {
	switch {
	case r.Problem != "":
		return r.Problem
	case r.Failed > 0:
		return fmt.Sprintf("%d failed", r.Failed)
	case r.Skipped > 0:
		return fmt.Sprintf("%d skipped, which counts as failed", r.Skipped)
	case r.Passed < want.Passed:
		return fmt.Sprintf("%d passed, %d must", r.Passed, want.Passed)
	}
	return ""
}

var verdictLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): `)

// count reads what a test binary printed with -test.v.
func count(output io.Reader) (r result, err error) {
	lines := bufio.NewReaderSize(output, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if m := verdictLine.FindSubmatch(line); m != nil {
			switch string(m[1]) {
			case "PASS":
				r.Passed++
			case "FAIL":
				r.Failed++
			case "SKIP":
				r.Skipped++
			}
		}
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return r, err
		}
	}
}

// table prints the rows, and gives how many are not as they must be, and all counts together.
func table(w io.Writer, rows []row, results map[string]result) (bad int, sum result) {
	tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ROW\tDRIVER\tACCELERATOR\tLINK\tAS\tPASSED\tFAILED\tSKIPPED\tMUST PASS\tTIME\t")
	for _, r := range rows {
		got, ran := results[r.Name]
		if !ran {
			got.Problem = "did not run"
		}
		verdict := "ok"
		if why := got.verdict(r); why != "" {
			verdict, bad = why, bad+1
		} else if got.Passed > r.Passed {
			verdict = "ok; raise its count in tests/lab/rows.json"
		}
		sum.Passed, sum.Failed, sum.Skipped = sum.Passed+got.Passed, sum.Failed+got.Failed, sum.Skipped+got.Skipped
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%.0f s\t%s\n",
			r.Name, r.Driver, r.Accelerator, r.Link, r.As, got.Passed, got.Failed, got.Skipped, r.Passed, got.Seconds, verdict)
	}
	tw.Flush()
	fmt.Fprintf(w, "lab: %d rows, %d bad; %d passed, %d failed, %d skipped\n", len(rows), bad, sum.Passed, sum.Failed, sum.Skipped)
	return bad, sum
}

// environment of a row.
func (r row) environment() []string {
	var env []string
	for k, v := range r.Env {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env
}

// tail is the end of a text that is too long to be shown, from a line's start.
func tail(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	text = text[len(text)-limit:]
	if _, rest, ok := strings.Cut(text, "\n"); ok {
		text = rest
	}
	return "…\n" + text
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Command bench measures the figures of SPECIFICATION.md: each is a ratio of
// banger to a baseline that ran in the same minutes, the two alternating, and
// what counts is the median of several runs. It prints a table and writes
// bench-results/bench.json.
//
//	go run ./tests/bench [-runs 9] [-only NAME,…] [-skip NAME,…]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one line of the table. Limit is what Value must not exceed, or,
// where AtLeast, must reach.
type figure struct {
	Name     string    `json:"name"`
	Value    float64   `json:"value"`
	Unit     string    `json:"unit"` // "x" for a ratio
	Limit    float64   `json:"limit"`
	AtLeast  bool      `json:"at_least,omitempty"`
	Baseline string    `json:"baseline,omitempty"`
	Ours     []float64 `json:"ours,omitempty"`   // the single runs, in seconds or bytes
	Theirs   []float64 `json:"theirs,omitempty"` // of the baseline
	Note     string    `json:"note,omitempty"`
}

func (f figure) ok() bool {
	switch {
	case f.Limit == 0:
		return true // reported only
	case f.AtLeast:
		return f.Value >= f.Limit
	}
	return f.Value <= f.Limit
}

// work is one group of figures that shares its preparations.
type work struct {
	name string
	run  func(*lab) ([]figure, error)
}

func works() []work {
	return []work{
		{"run", benchRun},
		{"exec", benchExec},
		{"list", benchList},
		{"create8", benchCreate8},
		{"bulk", benchBulk},
		{"memory", benchMemory},
		{"image", benchImage},
		{"debvm", benchDebvm},
		{"pull", benchPull},
		{"busybox", benchBusybox},
	}
}

func main() {
	runs := flag.Int("runs", 9, "counted runs of each figure")
	only := flag.String("only", "", "only these works, separated by commas")
	skip := flag.String("skip", "", "not these works")
	flag.Parse()
	if err := bench(*runs, list(*only), list(*skip)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func bench(runs int, only, skip []string) error {
	l, err := newLab(runs)
	if err != nil {
		return err
	}
	defer l.close()
	var all []figure
	missed := 0
	for _, w := range works() {
		if (only != nil && !slices.Contains(only, w.name)) || slices.Contains(skip, w.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "== %s\n", w.name)
		figures, err := w.run(l)
		if err != nil {
			return fmt.Errorf("cannot measure %s: %w", w.name, err)
		}
		for _, f := range figures {
			if !f.ok() {
				missed++
			}
		}
		all = append(all, figures...)
	}
	table(all)
	if err := os.MkdirAll("bench-results", 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(map[string]any{"time": time.Now().UTC(), "runs": runs, "figures": all}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join("bench-results", "bench.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if missed > 0 {
		return fmt.Errorf("%d figure(s) missed", missed)
	}
	return nil
}

func table(all []figure) {
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tBANGER\tBASELINE\tVALUE\tMUST\t\t")
	for _, f := range all {
		must := "reported"
		if f.Limit != 0 {
			sign := "≤"
			if f.AtLeast {
				sign = "≥"
			}
			must = fmt.Sprintf("%s %g %s", sign, f.Limit, f.Unit)
		}
		verdict := "ok"
		if !f.ok() {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.3g %s\t%s\t%s\t%s\n", f.Name, seconds(f.Ours), seconds(f.Theirs), f.Value, f.Unit, must, verdict, f.Note)
	}
	w.Flush()
}

func seconds(runs []float64) string {
	if len(runs) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f s", median(runs))
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// benchVerb measures in several short boots and pools what they give.
func benchVerb(ctx context.Context, o options) (int, error) {
	works := strings.Split(o.works, ",")
	for _, w := range works {
		if benchWorks()[w] == nil {
			return 2, fmt.Errorf("-works %s: there is no such work", w)
		}
	}
	if o.direct {
		return failed(benchDirect(ctx, o, works))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("the lab's time is over: -timeout %s", o.timeout))
	defer cancel()
	c, err := openCache()
	if err != nil {
		return codeFailed, err
	}
	s, err := prepare(ctx, c, o.plan)
	if err != nil {
		return codeFailed, err
	}
	defer s.remove()
	pool := samples{}
	var failures []error
	var again []string
	for _, w := range works { // a boot of its own each time: boots stay short
		for n := range o.boots {
			got, first, err := o.benchBoots(ctx, s, w)
			if first != nil {
				again = append(again, fmt.Sprintf("%s: %v", w, first))
			}
			if err != nil { // what is measured counts all the same
				failures = append(failures, fmt.Errorf("%s: boot %d of %d: %w", w, n+1, o.boots, err))
				say("%v", failures[len(failures)-1])
				break
			}
			say("%s: boot %d of %d is measured", w, n+1, o.boots)
			for name, v := range got {
				pool[name] = append(pool[name], v...)
			}
		}
	}
	missed := benchTable(os.Stdout, pool)
	for _, a := range again {
		fmt.Println("begun again:", a)
	}
	if err := os.MkdirAll("bench-results", 0o755); err != nil {
		return codeFailed, err
	}
	if err := writeJSON(filepath.Join("bench-results", "lab.json"), map[string]any{"time": time.Now().UTC(), "boots": o.boots, "samples": pool}); err != nil {
		return codeFailed, err
	}
	if missed > 0 {
		failures = append(failures, fmt.Errorf("%d figure(s) missed", missed))
	}
	if len(failures) > 0 {
		return 1, errors.Join(failures...)
	}
	return 0, nil
}

// benchBoots is benchBoot, once more where it failed: hosts in emulation hang now
// and then. first is what failed then.
func (o options) benchBoots(ctx context.Context, s stock, work string) (got samples, first, err error) {
	got, err = o.benchBoot(ctx, s, work)
	if err == nil || ctx.Err() != nil {
		return got, nil, err
	}
	say("%s: %v; once more in a fresh boot", work, err)
	first = err
	got, err = o.benchBoot(ctx, s, work)
	return got, first, err
}

// benchBoot measures one work in one boot.
func (o options) benchBoot(ctx context.Context, s stock, work string) (samples, error) {
	m, err := boot(ctx, s, o.plan)
	if err != nil {
		return nil, err
	}
	defer m.end()
	exit, err := m.run(ctx, command{
		argv: []string{"lab", "bench", "-direct", "-works", work, "-pairs", fmt.Sprint(o.pairs), "-creations", fmt.Sprint(o.creations), "-out", "/lab/out"},
		dir:  "/root", stdout: os.Stderr, stderr: os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	if exit.Code != 0 {
		return nil, fmt.Errorf("measuring %s ended with code %d", work, exit.Code)
	}
	var reply limitedBuffer
	if _, err := m.run(ctx, command{argv: []string{"cat", "/lab/out/bench.json"}, stdout: &reply, stderr: os.Stderr}); err != nil {
		return nil, err
	}
	var got samples
	if err := json.Unmarshal(reply.b, &got); err != nil {
		return nil, fmt.Errorf("the samples of %s: %w", work, err)
	}
	return got, nil
}

// benchTable prints the figures there are samples of, and says how many miss
// what they must.
func benchTable(w io.Writer, s samples) (missed int) {
	tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FIGURE\tVALUE\t\tMUST\t\t")
	for _, f := range benchFigures() {
		v, ok := f.value(s)
		if !ok {
			continue
		}
		verdict := "ok"
		if v > f.limit {
			verdict = "MISSED"
			missed++
		}
		fmt.Fprintf(tw, "%s\t%.3g\t%s\t≤ %g\t%s\n", f.name, v, f.baseline, f.limit, verdict)
	}
	tw.Flush()
	fmt.Fprintln(w)
	tw = tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "MEDIAN OF\tVALUE\tSAMPLES\t")
	for _, n := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(tw, "%s\t%.3f\t%d\n", n, median(s[n]), len(s[n]))
	}
	tw.Flush()
	return missed
}

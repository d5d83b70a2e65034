package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// bootLife is how long a lab host gets new rows; an older one is likelier to
	// panic.
	bootLife = 150 * time.Second
	// rowTries is how often a row is begun: once more when its host failed.
	rowTries = 2
)

// suiteVerb runs the rows of rows.json.
func suiteVerb(ctx context.Context, o options) (int, error) {
	rows, err := readRows(rowsFile, o.rows)
	if err != nil {
		return 2, err
	}
	if o.plan.systemd {
		for i := range rows {
			rows[i].Host = hostSystemd
		}
	}
	if o.direct {
		return suiteDirect(ctx, o, rows)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("the lab's time is over: -timeout %s", o.timeout))
	defer cancel()
	if o.out == "" {
		if o.out, err = os.MkdirTemp("", "banger-suite-"); err != nil {
			return codeFailed, err
		}
		defer os.RemoveAll(o.out)
	} else if err := os.MkdirAll(o.out, 0o755); err != nil {
		return codeFailed, err
	}
	c, err := openCache()
	if err != nil {
		return codeFailed, err
	}
	o.plan.carry.packages = packagesOf(rows)
	s, err := prepare(ctx, c, o.plan)
	if err != nil {
		return codeFailed, err
	}
	defer s.remove()
	w := &suite{stock: s, options: o, results: map[string]result{}, tries: map[string]int{}, rows: rows}
	var wg sync.WaitGroup
	for range min(o.parallel, len(rows)) {
		wg.Go(func() { w.worker(ctx) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		say("%v", context.Cause(ctx))
	}
	bad, sum := table(os.Stdout, rows, w.results)
	if o.counts != "" {
		// A row that gave no count is one failure.
		if bad > 0 && sum.Failed == 0 {
			sum.Failed = bad
		}
		if err := appendLine(o.counts, fmt.Sprintf("%d %d %d\n", sum.Passed, sum.Failed, sum.Skipped)); err != nil {
			return codeFailed, err
		}
	}
	if bad > 0 {
		return 1, nil
	}
	return 0, nil
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// suite hands rows to workers, each with a lab host of its own at a time.
type suite struct {
	stock   stock
	options options

	mu      sync.Mutex
	rows    []row
	tries   map[string]int // begun so often; absent: not yet
	results map[string]result
}

// next gives a row nobody has begun, one for the kind of host that is wanted if
// there is one.
func (s *suite) next(host string) (row, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, any := range []bool{false, true} {
		for _, r := range s.rows {
			if s.tries[r.Name] == 0 && (any || r.Host == host) {
				s.tries[r.Name]++
				return r, true
			}
		}
	}
	return row{}, false
}

// worker boots hosts and runs rows in them until there are none.
func (s *suite) worker(ctx context.Context) {
	var m *machine
	var up time.Time
	end := func() {
		if m != nil {
			m.end()
			m = nil
		}
	}
	defer end()
	host := ""
	for ctx.Err() == nil {
		r, ok := s.next(host)
		if !ok {
			return
		}
		for try := 1; ; try++ {
			var got result
			var err error
			if m != nil && (time.Since(up) > bootLife || r.Host != host) {
				end()
			}
			if m == nil {
				plan := s.options.plan
				host, plan.systemd = r.Host, r.Host == hostSystemd
				if m, err = boot(ctx, s.stock, plan); err == nil {
					up = time.Now()
				}
			}
			if err == nil {
				say("%s: begins", r.Name)
				got, err = s.row(ctx, m, r)
			}
			if err == nil {
				s.done(r, got)
				break
			}
			end()
			var host errHost
			if errors.As(err, &host) && try < rowTries && ctx.Err() == nil {
				say("row %s: %v; once more in a fresh boot", r.Name, err)
				continue
			}
			s.done(r, result{Row: r.Name, Problem: err.Error()})
			break
		}
	}
}

func (s *suite) done(r row, got result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[r.Name] = got
	report(os.Stdout, r, got, filepath.Join(s.options.out, r.Name+".log"))
}

// row runs one row in the host, by the same program in its direct mode.
func (s *suite) row(ctx context.Context, m *machine, r row) (result, error) {
	limit := r.timeout() + 2*time.Minute // the row's own end comes first
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the lab host gave no answer within %s", limit))
	defer cancel()
	ctx, still := context.WithCancelCause(ctx)
	defer still(nil)
	go m.watch(ctx, still)
	dir := "/lab/out/" + r.Name
	var log, words limitedBuffer
	exit, err := m.run(ctx, command{
		argv: []string{"lab", "suite", "-direct", fmt.Sprintf("-systemd=%t", r.Host == hostSystemd), "-rows", "^" + r.Name + "$", "-out", dir}, stdout: &words, stderr: &words, session: true,
	})
	if err != nil {
		return result{}, err
	}
	if _, err := m.run(ctx, command{argv: []string{"cat", dir + "/" + r.Name + ".log"}, stdout: &log, stderr: &words}); err != nil {
		return result{}, err
	}
	if err := os.WriteFile(filepath.Join(s.options.out, r.Name+".log"), log.b, 0o644); err != nil {
		return result{}, err
	}
	var reply limitedBuffer
	if _, err := m.run(ctx, command{argv: []string{"cat", dir + "/" + r.Name + ".json"}, stdout: &reply, stderr: &words}); err != nil {
		return result{}, err
	}
	var got result
	if err := json.Unmarshal(reply.b, &got); err != nil {
		return result{}, fmt.Errorf("no count came back (code %d): %s", exit.Code, tail(string(words.b), 4<<10))
	}
	return got, nil
}

// limitedBuffer keeps the first bytes and swallows the rest.
type limitedBuffer struct{ b []byte }

const bufferLimit = 4 << 20

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), bufferLimit-len(l.b))]...)
	return len(p), nil
}

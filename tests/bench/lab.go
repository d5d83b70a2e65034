package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
)

// lab is a root of its own with a daemon and the default image.
type lab struct {
	runs   int
	bin    string
	root   string
	env    []string // settings of the daemon
	keep   bool
	layout layout.Layout
}

func newLab(runs int) (*lab, error) {
	bin, err := filepath.Abs("bin/banger")
	if err != nil {
		return nil, err
	}
	l := &lab{runs: runs, bin: bin}
	if l.root = os.Getenv("BANGER_BENCH_ROOT"); l.root != "" {
		l.keep = true
	} else if l.root, err = os.MkdirTemp("", "banger-b"); err != nil {
		return nil, err
	}
	l.layout, err = layout.Resolve(func(key string) string {
		if key == "BANGER_ROOT" {
			return l.root
		}
		return os.Getenv(key)
	}, os.Getuid())
	if err != nil {
		return nil, err
	}
	// The image, the kernel and the probe are there before anything is timed.
	if _, err := l.banger("vm", "run", "--rm", "--", "true"); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// restart ends the daemon; the next one has these settings.
func (l *lab) restart(env ...string) error {
	_, err := l.banger("daemon", "stop")
	l.env = env
	return err
}

func (l *lab) close() {
	_, _ = l.banger("daemon", "stop")
	if !l.keep {
		os.RemoveAll(l.root)
	}
}

func (l *lab) command(args ...string) *exec.Cmd {
	cmd := exec.Command(l.bin, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "BANGER_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(append(cmd.Env, "BANGER_ROOT="+l.root), l.env...)
	return cmd
}

// banger runs the program and gives its stdout.
func (l *lab) banger(args ...string) (string, error) {
	cmd := l.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("banger %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// create makes a running VM of the size all figures use.
func (l *lab) create(more ...string) (api.VM, error) {
	var vm api.VM
	out, err := l.banger(append([]string{"vm", "create", "--vcpu", "1", "--memory", "512M", "--json"}, more...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &vm)
	}
	return vm, err
}

func (l *lab) delete(ids ...string) error {
	_, err := l.banger(append([]string{"vm", "delete", "--force"}, ids...)...)
	return err
}

// long is how often a work is run whose runs take half a minute and more: a
// third as often, for their noise is small beside them.
func (l *lab) long() int { return (l.runs + 2) / 3 }

// pairs times a and b alternately, after one warm-up of each.
func (l *lab) pairs(a, b func() error) (as, bs []float64, err error) {
	return pairs(l.runs, 1, a, b)
}

func pairs(runs, warm int, a, b func() error) (as, bs []float64, err error) {
	for i := range runs + warm {
		ta, err := timed(a)
		if err != nil {
			return nil, nil, err
		}
		tb, err := timed(b)
		if err != nil {
			return nil, nil, err
		}
		if i >= warm {
			as, bs = append(as, ta), append(bs, tb)
		}
	}
	return as, bs, nil
}

func timed(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return time.Since(start).Seconds(), err
}

// ratio is a figure that compares medians.
func ratio(name string, ours, theirs []float64, baseline string, limit float64) figure {
	return figure{Name: name, Value: median(ours) / median(theirs), Unit: "x", Limit: limit, Baseline: baseline, Ours: ours, Theirs: theirs}
}

// quiet runs a command whose output does not matter unless it fails.
func quiet(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &errOut
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %.2000s", name, err, errOut.String())
	}
	return nil
}

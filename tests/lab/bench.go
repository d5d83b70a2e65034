package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/layout"
)

// benchMemory is the memory of the guests that are measured, in bytes.
const benchMemory = 256 << 20

// samples are single measurements by name, in seconds or as the name says.
type samples map[string][]float64

func (s samples) add(name string, v float64) { s[name] = append(s[name], v) }

// bencher measures on this very host, in one boot.
type bencher struct {
	ctx       context.Context
	out       samples
	pairs     int
	creations int
	raw       *raw
	store     string
}

// benchWorks are what can be measured; each is some pairs within one boot.
func benchWorks() map[string]func(*bencher) error {
	return map[string]func(*bencher) error{
		"run-qemu": func(b *bencher) error {
			return b.run("qemu", func() (float64, error) { return b.raw.qemu(b.ctx, "kvm") })
		},
		"run-firecracker": func(b *bencher) error {
			return b.run("firecracker", func() (float64, error) { return b.raw.firecracker(b.ctx) })
		},
		"exec-qemu":         func(b *bencher) error { return b.exec("qemu") },
		"exec-firecracker":  func(b *bencher) error { return b.exec("firecracker") },
		"leaks-qemu":        func(b *bencher) error { return b.leaks("qemu") },
		"leaks-firecracker": func(b *bencher) error { return b.leaks("firecracker") },
	}
}

// benchDirect measures the works here and writes the samples to bench.json in out.
func benchDirect(ctx context.Context, o options, works []string) error {
	store := os.Getenv("BANGER_ROOT")
	if store == "" {
		return errors.New("BANGER_ROOT names the store to measure with; lab bench without -direct makes one")
	}
	dir, err := os.MkdirTemp("", "banger-raw-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bencher{ctx: ctx, out: samples{}, pairs: o.pairs, creations: o.creations, store: store}
	if b.raw, err = newRaw(ctx, dir, store, benchMemory); err != nil {
		return err
	}
	// The probe and the daemon's start are not what is measured.
	if _, err := b.banger("vm", "list"); err != nil {
		return err
	}
	defer b.banger("daemon", "stop")
	for _, w := range works {
		say("measuring %s", w)
		if err := benchWorks()[w](b); err != nil {
			return fmt.Errorf("cannot measure %s: %w", w, err)
		}
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	return writeJSON(filepath.Join(o.out, "bench.json"), b.out)
}

// banger runs the program and gives its stdout.
func (b *bencher) banger(args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, "banger", args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("banger %s: %w: %s", strings.Join(args, " "), err, tail(said.String(), 2<<10))
	}
	return string(out), nil
}

// size are the flags of every machine that is measured.
func size(driver string) []string {
	return []string{"--driver", driver, "--accel", "kvm", "--vcpu", "1", "--memory", "256M"}
}

// run compares `vm run --rm -- true` with a raw boot, alternating; the first
// pair does not count.
func (b *bencher) run(driver string, rawBoot func() (float64, error)) error {
	for i := range b.pairs + 1 {
		began := time.Now()
		if _, err := b.banger(append(append([]string{"vm", "run", "--rm"}, size(driver)...), "--", "true")...); err != nil {
			return err
		}
		ours := time.Since(began).Seconds()
		theirs, err := rawBoot()
		if err != nil {
			return err
		}
		if i > 0 {
			b.out.add("run-"+driver, ours)
			b.out.add("run-"+driver+"-raw", theirs)
		}
	}
	return nil
}

// exec measures commands in a running machine, by command line and by client,
// its keeper's memory, and a raw boot of Firecracker to scale by.
func (b *bencher) exec(driver string) error {
	text, err := b.banger(append([]string{"vm", "create", "--json"}, size(driver)...)...)
	if err != nil {
		return err
	}
	var vm api.VM
	if err := json.Unmarshal([]byte(text), &vm); err != nil {
		return err
	}
	err = b.commands(driver, vm.ID)
	if err == nil {
		err = b.keeper(driver, vm.ID)
	}
	if _, derr := b.banger("vm", "delete", "--force", vm.ID); err == nil {
		err = derr
	}
	if err != nil {
		return err
	}
	for i := range b.pairs + 1 {
		t, err := b.raw.firecracker(b.ctx)
		if err != nil {
			return err
		}
		if i > 0 {
			b.out.add("exec-"+driver+"-raw-firecracker", t)
		}
	}
	return nil
}

func (b *bencher) commands(driver, id string) error {
	l, err := layout.Resolve(os.Getenv, os.Getuid())
	if err != nil {
		return err
	}
	c := client.New(client.Options{Socket: l.DaemonSocket()})
	defer c.Close()
	for i := range 3*b.pairs + 1 {
		began := time.Now()
		if _, err := b.banger("vm", "exec", id, "--", "true"); err != nil {
			return err
		}
		byCLI := time.Since(began).Seconds()
		began = time.Now()
		s, err := c.Exec(b.ctx, id, api.Exec{Argv: []string{"true"}, NoStdin: true})
		if err != nil {
			return err
		}
		exit, err := s.Copy(client.IO{Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}})
		s.Close()
		if err != nil || exit.Code != 0 {
			return fmt.Errorf("true ended with %+v: %w", exit, err)
		}
		if i > 0 {
			b.out.add("exec-"+driver+"-cli", byCLI)
			b.out.add("exec-"+driver+"-client", time.Since(began).Seconds())
		}
	}
	return nil
}

// keeperRest is how long a keeper is left alone before it counts as idle.
const keeperRest = 10 * time.Second

// keeper measures the PSS of the machine's keeper, in MiB.
func (b *bencher) keeper(driver, id string) error {
	select {
	case <-time.After(keeperRest):
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !bytes.Contains(line, []byte("keeper\x00")) || !bytes.Contains(line, []byte(id)) {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(rollup)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, err := strconv.Atoi(strings.Fields(rest)[0])
				if err != nil {
					return err
				}
				b.out.add("keeper-"+driver+"-mib", float64(kib)/1024)
				return nil
			}
		}
	}
	return fmt.Errorf("no keeper of %s is found", id)
}

// boundFigure is one line of the table: a value out of the samples, and what it
// must not exceed.
type boundFigure struct {
	name, baseline string
	limit          float64
	value          func(samples) (float64, bool)
}

// What LAB.md's table says of microsandbox, in seconds, beside raw Firecracker's
// boot of the same minutes.
const (
	microsandboxCLI = 0.645
	microsandboxSDK = 0.044
	theirRawBoot    = 5.0
)

func benchFigures() []boundFigure {
	ratio := func(a, b string, scale float64) func(samples) (float64, bool) {
		return func(s samples) (float64, bool) {
			if len(s[a]) == 0 || len(s[b]) == 0 {
				return 0, false
			}
			return median(s[a]) / (scale * median(s[b])), true
		}
	}
	var out []boundFigure
	for _, driver := range []string{"firecracker", "qemu"} {
		run, exec := "run-"+driver, "exec-"+driver
		out = append(out,
			boundFigure{"vm run --rm -- true, " + driver, "× raw " + driver, 1.3, ratio(run, run+"-raw", 1)},
			boundFigure{"vm exec VM -- true by CLI, " + driver, "× microsandbox's CLI, scaled", 0.25, ratio(exec+"-cli", exec+"-raw-firecracker", microsandboxCLI/theirRawBoot)},
			boundFigure{"the same by the Go client, " + driver, "× microsandbox's SDK, scaled", 1, ratio(exec+"-client", exec+"-raw-firecracker", microsandboxSDK/theirRawBoot)},
			boundFigure{"keeper beside " + driver + ", idle", "MiB PSS", 20, func(s samples) (float64, bool) {
				v := s["keeper-"+driver+"-mib"]
				return median(v), len(v) > 0
			}},
			boundFigure{"left after create and delete, " + driver, "things", 0, func(s samples) (float64, bool) {
				v := s["leaks-"+driver]
				return sum(v), len(v) > 0
			}},
		)
	}
	return out
}

func sum(v []float64) (n float64) {
	for _, x := range v {
		n += x
	}
	return n
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

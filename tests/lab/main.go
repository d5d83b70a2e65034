package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	units "github.com/docker/go-units"
	"golang.org/x/term"

	"github.com/bangervm/banger/internal/layout"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code, err := lab(ctx, os.Args[1:])
	if err != nil {
		say("%v", err)
	}
	if ctx.Err() != nil {
		code = 130
	}
	stop()
	os.Exit(code)
}

// say tells the user what the lab does, beside the output of what runs in it.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...) }

const usage = "usage: lab run [flags] [--] CMD…  |  lab shell [flags]  |  lab suite [flags]  |  lab bench [flags]  |  lab build"

// Exit codes of our own; a command's are passed on.
const (
	codeFailed  = 125 // the lab failed, not what ran in it
	codeTimeout = 124
)

func lab(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New(usage)
	}
	verb, args := args[0], args[1:]
	o, rest, err := parse(verb, args)
	if err != nil {
		return 2, err
	}
	switch verb {
	case "run":
		return runVerb(ctx, o, rest)
	case "shell":
		return shellVerb(ctx, o)
	case "suite":
		return suiteVerb(ctx, o)
	case "bench":
		return benchVerb(ctx, o)
	case "build":
		c, err := openCache()
		if err == nil {
			var s stock
			if s, err = prepare(ctx, c, o.plan); err == nil {
				err = s.remove()
			}
		}
		return failed(err)
	}
	return 2, errors.New(usage)
}

func failed(err error) (int, error) {
	if err != nil {
		return codeFailed, err
	}
	return 0, nil
}

// options are the flags of all verbs.
type options struct {
	plan    plan
	user    string
	timeout time.Duration
	out     string
	test    string
	run     string

	rows       string
	counts     string
	parallel   int
	direct     bool
	directUser string
	directAs   string

	works            string
	pairs, creations int
	boots            int
}

// words is a flag that may be given several times.
type words []string

func (w *words) String() string     { return strings.Join(*w, " ") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

func parse(verb string, args []string) (options, []string, error) {
	var o options
	fs := flag.NewFlagSet("lab "+verb, flag.ContinueOnError)
	memory := fs.String("memory", "3G", "memory of the lab host")
	fs.IntVar(&o.plan.vcpus, "cpus", 1, "processors of the lab host")
	fs.BoolVar(&o.plan.systemd, "systemd", false, "systemd is process 1 of the lab host, with udev and sessions (of a suite: for all rows); else banger-guest, which is faster")
	if verb == "bench" {
		fs.StringVar(&o.works, "works", "run-firecracker,run-qemu,exec-firecracker,exec-qemu,leaks-firecracker,leaks-qemu", "what to measure")
		fs.IntVar(&o.pairs, "pairs", 3, "counted pairs in each boot")
		fs.IntVar(&o.creations, "creations", 34, "machines created and deleted in each boot")
		fs.IntVar(&o.boots, "boots", 3, "boots for each work")
		fs.BoolVar(&o.direct, "direct", false, "no lab: on this very host, with the store BANGER_ROOT")
	}
	if verb == "suite" {
		o.user = "root"
		fs.StringVar(&o.rows, "rows", "", "only the rows of tests/lab/rows.json whose name matches")
		fs.StringVar(&o.counts, "counts", "", "file to which a line with the counts is added: passed, failed, skipped")
		fs.IntVar(&o.parallel, "parallel", min(2, runtime.NumCPU()), "lab hosts at a time")
		fs.BoolVar(&o.direct, "direct", false, "no lab: on this very host, which must have working KVM")
		fs.StringVar(&o.directUser, "user", "dev", "with -direct, as root: the ordinary user of the rows that want one")
		fs.StringVar(&o.directAs, "as", "", "with -direct: only the rows that run as root, or as dev")
	} else {
		fs.StringVar(&o.user, "as", "root", "who the command runs as: root or dev, an ordinary user who may use /dev/kvm")
	}
	fs.DurationVar(&o.timeout, "timeout", defaultTimeout(verb), "the end of all, boot included; then the code is 124")
	fs.StringVar(&o.out, "out", "", "folder for what lies in /lab/out at the end, and the console's log")
	fs.StringVar(&o.plan.state, "state", "", "folder that keeps the writable disks for a later boot")
	fs.BoolVar(&o.plan.cut, "cut", false, "with -state: end as a power cut, at once after the command")
	fs.StringVar(&o.test, "test", "", "package, as ./internal/vmm/qemu: run its tests instead of a command")
	fs.StringVar(&o.run, "run", "", "with -test: only the tests that match")
	fs.Var((*words)(&o.plan.carry.files), "in", "file or folder to carry to /lab/in, PATH or PATH:NAME; may be repeated")
	fs.Var((*words)(&o.plan.carry.packages), "carry", "package whose compiled tests to carry to /lab/in/pkg/PATH; may be repeated")
	if err := fs.Parse(args); err != nil {
		return o, nil, err
	}
	var err error
	if o.plan.memory, err = units.RAMInBytes(*memory); err != nil {
		return o, nil, fmt.Errorf("-memory %s: %w", *memory, err)
	}
	switch {
	case o.user != "root" && o.user != "dev":
		return o, nil, fmt.Errorf("-as %s: the lab host has the users root and dev", o.user)
	case o.plan.cut && o.plan.state == "":
		return o, nil, errors.New("-cut means nothing without -state")
	case o.run != "" && o.test == "":
		return o, nil, errors.New("-run goes with -test")
	}
	if o.test != "" {
		o.plan.carry.packages = append(o.plan.carry.packages, o.test)
	}
	return o, fs.Args(), nil
}

// runVerb runs one command.
func runVerb(ctx context.Context, o options, argv []string) (int, error) {
	c := command{argv: argv, stdout: os.Stdout, stderr: os.Stderr}
	script := os.Getenv("LAB_CMD")
	switch {
	case o.test != "":
		c.dir = "/lab/in/" + packageDir(o.test)
		c.argv = append([]string{"./" + testBinary(o.test), "-test.v", "-test.run", o.run}, argv...)
	case len(argv) == 0 && script != "":
		c.argv = []string{"bash", "-c", script}
	case len(argv) == 0:
		return 2, errors.New("no command: lab run [flags] [--] CMD…, or LAB_CMD='a line for bash'")
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		c.stdin = os.Stdin
	}
	return o.session(ctx, c)
}

// defaultTimeout of a verb: a suite boots several hosts, a shell is somebody's.
func defaultTimeout(verb string) time.Duration {
	switch verb {
	case "suite":
		return 20 * time.Minute
	case "bench":
		return time.Hour
	case "shell":
		return 12 * time.Hour
	}
	return 10 * time.Minute
}

func shellVerb(ctx context.Context, o options) (int, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		return 2, errors.New("lab shell needs a terminal; lab run runs a command")
	}
	return o.session(ctx, command{argv: []string{"bash", "-l"}, tty: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: []string{"TERM=" + os.Getenv("TERM")}})
}

// session boots a host for the command, and once more when the first host fails.
func (o options) session(ctx context.Context, c command) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("the lab's time is over: -timeout %s", o.timeout))
	defer cancel()
	cc, err := openCache()
	if err != nil {
		return codeFailed, err
	}
	s, err := prepare(ctx, cc, o.plan)
	if err != nil {
		return codeFailed, err
	}
	defer s.remove()
	c.user, c.session = o.user, true
	if c.dir == "" {
		c.dir = map[string]string{"root": "/root", "dev": "/home/dev"}[o.user]
	}
	for try := 1; ; try++ {
		code, err := o.once(ctx, s, c)
		var host errHost
		if errors.As(err, &host) && try == 1 && ctx.Err() == nil && c.stdin == nil {
			say("%v", err)
			say("once more in a fresh boot")
			continue
		}
		if err != nil && context.Cause(ctx) != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return codeTimeout, context.Cause(ctx)
		}
		return code, err
	}
}

func (o options) once(ctx context.Context, s stock, c command) (code int, err error) {
	began := time.Now()
	m, err := boot(ctx, s, o.plan)
	if err != nil {
		return codeFailed, err
	}
	defer m.end()
	defer func() {
		if o.out != "" {
			err = errors.Join(err, m.keep(o.out))
		}
	}()
	if o.user != "root" {
		if err := m.ready(ctx, o.user); err != nil {
			return codeFailed, err
		}
	}
	say("up after %.1f s", time.Since(began).Seconds())
	exit, err := m.run(ctx, c)
	if err != nil {
		return codeFailed, err
	}
	return exit.Code, nil
}

// keep brings what is to be kept of a lab host; it may be in a bad way.
func (m *machine) keep(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "console.log"), m.console.bytes(), 0o644)
	}
	select {
	case <-m.vm.Done():
	default:
		err = errors.Join(err, m.fetch(ctx, "/lab/out", dir))
	}
	return err
}

// kernelRelease is what the kernel calls itself.
func kernelRelease(k layout.KernelDir) (string, error) {
	b, err := os.ReadFile(k.Manifest())
	if err != nil {
		return "", err
	}
	var m struct {
		Release string `json:"release"`
	}
	if err := json.Unmarshal(b, &m); err != nil || m.Release == "" {
		return "", fmt.Errorf("cannot read %s: %w", k.Manifest(), err)
	}
	return m.Release, nil
}

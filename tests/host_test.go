package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// patience bounds every wait for something that takes a second on an idle
// machine; the machines are noisy.
const patience = 120 * time.Second

// bangerBin is the program under test and baseRoot the root with the default
// image and kernel in it; TestMain sets both.
var bangerBin, baseRoot string

func TestMain(m *testing.M) {
	// Started in the background of a script, we and so the programs under test
	// would ignore Ctrl-C, under nohup a hang-up. What is caught here is as by
	// default in them.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGHUP)
	go func() {
		<-interrupted
		os.Exit(130)
	}()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	bin := os.Getenv("BANGER_BIN")
	if bin == "" {
		bin = "../bin/banger"
	}
	var err error
	if bangerBin, err = filepath.Abs(bin); err == nil {
		_, err = os.Stat(bangerBin)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot find the program to test: %v; run make build\n", err)
		return 1
	}
	if baseRoot = os.Getenv("BANGER_TEST_STORE"); baseRoot == "" {
		dir, err := os.MkdirTemp("", "banger-t")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		baseRoot = dir
	}
	// What an earlier build has made is no template of this one's machines.
	if err := os.RemoveAll(filepath.Join(baseRoot, "cache", "templates")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Preparing is itself the first test: it shows its progress and fails loudly.
	start := time.Now()
	cmd := exec.Command(bangerBin, "vm", "run", "--rm", "--vcpu", "1", "--memory", "512M", "--progress", "plain", "--", "uname", "-a")
	cmd.Env = environ(baseRoot)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot prepare the root for the tests: %v\n", err)
		if log, err := os.ReadFile(filepath.Join(baseRoot, "state", "daemon.log")); err == nil {
			os.Stderr.Write(log)
		}
		stopDaemon(baseRoot)
		return 1
	}
	fmt.Fprintf(os.Stderr, "image, kernel and first machine: %.1fs\n", time.Since(start).Seconds())
	if err := prepareTemplate(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot prepare the root for the tests: %v\n", err)
		stopDaemon(baseRoot)
		return 1
	}
	stopDaemon(baseRoot)
	return m.Run()
}

// prepareTemplate waits for a template: in emulation the machines of the tests go on
// from one, as a user's later ones do.
func prepareTemplate() error {
	cmd := exec.Command(bangerBin, "events", "--json")
	cmd.Env = environ(baseRoot)
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var events []api.Event
	if err := json.Unmarshal(out, &events); err != nil {
		return err
	}
	emulated := slices.ContainsFunc(events, func(e api.Event) bool { return e.Kind == "vm.started" && e.Data["accelerator"] == "tcg" })
	for deadline := time.Now().Add(3 * time.Minute); emulated && len(templates(baseRoot, 512<<20)) == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("no template was made of the first machine")
		}
	}
	return nil
}

// templates are the folders of the root's templates for machines with so much
// memory and one processor.
func templates(root string, memory int64) []string {
	kinds, _ := filepath.Glob(filepath.Join(root, "cache", "templates", "*", "kind.json"))
	var dirs []string
	for _, path := range kinds {
		var kind struct {
			VCPUs  int   `json:"vcpus"`
			Memory int64 `json:"memory_bytes"`
		}
		if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &kind) == nil && kind.VCPUs == 1 && kind.Memory == memory {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

func stopDaemon(root string) {
	cmd := exec.Command(bangerBin, "daemon", "stop")
	cmd.Env = environ(root)
	_ = cmd.Run()
}

// environ is the caller's environment with a root of its own and nothing of
// banger's settings.
func environ(root string, more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "BANGER_") && !strings.HasPrefix(kv, "XDG_") {
			env = append(env, kv)
		}
	}
	return append(append(env, "BANGER_ROOT="+root), more...)
}

// host is one root with its daemon, as one user of banger sees it.
type host struct {
	t    *testing.T
	root string
	env  []string
	// through is a command line that banger's follows; mostly empty.
	through []string
}

// newHost clones the base root: images and kernels by hard link, the store by
// copy. Its end deletes all machines, stops the daemon and checks that no
// process of the root is left.
func newHost(t *testing.T) *host {
	t.Helper()
	h := newEmptyHost(t)
	for _, dir := range []string{"state/images", "state/kernels", "cache"} {
		h.clone(dir, true)
	}
	stores, err := filepath.Glob(filepath.Join(baseRoot, "state", "banger.db*"))
	if err != nil || len(stores) == 0 {
		t.Fatalf("no store in the base root %s: %v", baseRoot, err)
	}
	for _, s := range stores {
		data, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.root, "state", filepath.Base(s)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// newEmptyHost is a root with nothing in it.
func newEmptyHost(t *testing.T) *host {
	t.Helper()
	root, err := os.MkdirTemp("", "banger-h")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, root: root}
	h.env = environ(root)
	t.Cleanup(h.end)
	return h
}

func (h *host) clone(dir string, link bool) {
	h.t.Helper()
	from := filepath.Join(baseRoot, dir)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(baseRoot, path)
		if err != nil {
			return err
		}
		to := filepath.Join(h.root, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		return os.Link(path, to)
	})
	if err != nil {
		h.t.Fatalf("cannot clone %s: %v", from, err)
	}
}

func (h *host) end() {
	if h.t.Failed() {
		for _, pattern := range []string{"state/daemon.log", "state/vms/*/keeper.log", "state/vms/*/console.log", "state/vms/*/vmm.log"} {
			files, _ := filepath.Glob(filepath.Join(h.root, pattern))
			for _, f := range files {
				if data, err := os.ReadFile(f); err == nil {
					if len(data) > 4000 {
						data = data[len(data)-4000:]
					}
					h.t.Logf("%s:\n%s", f, data)
				}
			}
		}
	}
	if _, err := os.Stat(filepath.Join(h.root, "state")); err == nil {
		if r := h.banger("vm", "list", "--json"); r.code == 0 {
			var vms []api.VM
			_ = json.Unmarshal([]byte(r.stdout), &vms)
			for _, vm := range vms {
				h.banger("vm", "delete", "--force", vm.ID)
			}
		}
		h.banger("daemon", "stop")
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		left := h.processes()
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			for pid, cmdline := range left {
				h.t.Errorf("process %d is left: %s", pid, cmdline)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := os.RemoveAll(h.root); err != nil {
		h.t.Errorf("cannot remove the root: %v", err)
	}
}

// processes are the daemon, keepers and VMMs of this root, by pid: those whose
// command line or environment names it.
func (h *host) processes(containing ...string) map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if !bytes.Contains(cmdline, []byte(h.root)) && !bytes.Contains(env, []byte("BANGER_ROOT="+h.root+"\x00")) {
			continue
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		all := true
		for _, c := range containing {
			all = all && strings.Contains(text, c)
		}
		if all {
			found[pid] = text
		}
	}
	return found
}

// daemonPID is the pid of this root's daemon.
func (h *host) daemonPID() int {
	h.t.Helper()
	var d api.Daemon
	h.json(&d, "daemon", "status", "--json")
	return d.PID
}

// result is what a command came to.
type result struct {
	args           []string
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("banger %s: code %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, clip(r.stdout), clip(r.stderr))
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:1500] + " … " + s[len(s)-1500:]
	}
	return s
}

// command prepares banger with args in this root.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	argv := append(append(h.through[:len(h.through):len(h.through)], bangerBin), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = h.env
	return cmd
}

// banger runs the program with an empty stdin.
func (h *host) banger(args ...string) result { return h.bangerIn(nil, args...) }

// bangerIn runs the program with stdin.
func (h *host) bangerIn(stdin io.Reader, args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	cmd := h.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errOut
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	err := cmd.Run()
	r := result{args: args, stdout: out.String(), stderr: errOut.String(), took: time.Since(start)}
	r.code = exitCode(h.t, err)
	if ctx.Err() != nil {
		h.t.Fatalf("timed out: %v", r)
	}
	return r
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()) // as a shell says it
		}
		return exit.ExitCode()
	}
	t.Fatalf("cannot run banger: %v", err)
	return -1
}

// ok runs the program and fails the test unless it exits with 0.
func (h *host) ok(args ...string) result {
	h.t.Helper()
	r := h.banger(args...)
	if r.code != 0 {
		h.t.Fatalf("expected success: %v", r)
	}
	return r
}

// fails runs the program and expects the exit code, and each of the words on
// stderr.
func (h *host) fails(code int, words []string, args ...string) result {
	h.t.Helper()
	r := h.banger(args...)
	if r.code != code {
		h.t.Fatalf("expected code %d: %v", code, r)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			h.t.Errorf("expected %q on stderr: %v", w, r)
		}
	}
	return r
}

// json runs the program and decodes its stdout into v.
func (h *host) json(v any, args ...string) {
	h.t.Helper()
	r := h.ok(args...)
	if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
		h.t.Fatalf("cannot decode: %v: %v", err, r)
	}
}

// create makes a running VM with one CPU and 512 MiB.
func (h *host) create(name string, more ...string) api.VM {
	h.t.Helper()
	var vm api.VM
	h.json(&vm, append([]string{"vm", "create", "--name", name, "--vcpu", "1", "--memory", "512M", "--json"}, more...)...)
	return vm
}

func (h *host) show(ref string) api.VM {
	h.t.Helper()
	var vm api.VM
	h.json(&vm, "vm", "show", ref, "--json")
	return vm
}

// sh runs a shell line in the VM and gives its trimmed stdout.
func (h *host) sh(vm, line string) string {
	h.t.Helper()
	return strings.TrimSpace(h.ok("vm", "exec", vm, "--", "sh", "-c", line).stdout)
}

// eventually polls until the condition holds.
func (h *host) eventually(what string, within time.Duration, cond func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			h.t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

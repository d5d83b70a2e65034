package debian

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stubborn is a program like mmdebstrap: it takes note of TERM and goes on, as
// does what it runs. It prints the ids of both.
const stubborn = `#!/bin/sh
trap "echo noted >&2" HUP INT PIPE TERM
sh -c 'trap "" HUP INT PIPE TERM; while :; do sleep 1000; done' &
echo $$
echo $!
`

// helper is set for the process that a test kills.
const helper = "BANGER_TEST_BOOTSTRAP"

func program(t *testing.T, then string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mmdebstrap")
	if err := os.WriteFile(path, []byte(stubborn+then), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// pids reads the two ids.
func pids(t *testing.T, r io.Reader) []int {
	t.Helper()
	var list []int
	br := bufio.NewReader(r)
	for range 2 {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, pid)
	}
	return list
}

// gone waits until no process of these is left.
func gone(t *testing.T, pids []int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				t.Errorf("process %d is still there", pid)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// alive says whether a process runs; one that is dead and not yet waited for
// does not.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z")
}

// Whoever builds may be killed: nothing of what it started goes on.
func TestABuildEndsWithWhoStartedIt(t *testing.T) {
	if path := os.Getenv(helper); path != "" {
		p, err := start(path, nil, "/nonexistent", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(os.Stdout, p.stdout)
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestABuildEndsWithWhoStartedIt$")
	cmd.Env = append(os.Environ(), helper+"="+program(t, "while :; do wait; done\n"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started := pids(t, out)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var killed *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &killed) {
		t.Fatal(err)
	}
	gone(t, started)
}

// What mmdebstrap leaves when it ends would hold its pipes open for ever.
func TestABuildLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]string{"succeeds": "exit 0\n", "fails": "exit 1\n"} {
		p, err := start(program(t, then), nil, "/nonexistent", nil)
		if err != nil {
			t.Fatal(err)
		}
		started := pids(t, p.stdout)
		_, _ = io.Copy(io.Discard, p.stdout)
		if err := p.wait(); (err != nil) != (name == "fails") {
			t.Errorf("%s: %v", name, err)
		}
		gone(t, started)
	}
}

// One that is asked to end and does not is killed.
func TestABuildThatWillNotEndIsKilled(t *testing.T) {
	t.Parallel()
	p, err := start(program(t, "while :; do wait; done\n"), nil, "/nonexistent", nil)
	if err != nil {
		t.Fatal(err)
	}
	started := pids(t, p.stdout)
	p.end()
	_, _ = io.Copy(io.Discard, p.stdout)
	if p.wait() == nil {
		t.Error("it succeeded")
	}
	gone(t, started)
}

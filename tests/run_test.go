package tests

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

func (h *host) empty() {
	h.t.Helper()
	var vms []api.VM
	h.json(&vms, "vm", "list", "--json")
	if len(vms) != 0 {
		h.t.Errorf("machines are left: %+v", vms)
	}
	for _, dir := range []string{"state/vms", "run/vm"} {
		entries, err := os.ReadDir(h.root + "/" + dir)
		if err == nil && len(entries) != 0 {
			h.t.Errorf("%s is not empty: %v", dir, entries)
		}
	}
	// The blocks of deleted disks are let go of in the background.
	h.eventually("state/staging is empty", patience, func() bool {
		entries, err := os.ReadDir(h.root + "/state/staging")
		return err != nil || len(entries) == 0
	})
}

func TestRunGivesTheCommandsCodeAndOutput(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.banger("vm", "run", "--rm", "--", "sh", "-c", "uname -r; id -u; echo oops >&2; exit 7")
	lines := strings.Fields(r.stdout)
	if r.code != 7 || len(lines) != 2 || !strings.Contains(lines[0], "cloud-amd64") || lines[1] != "0" {
		t.Errorf("expected the guest's kernel, 0 and code 7: %v", r)
	}
	if !strings.Contains(r.stderr, "oops") {
		t.Errorf("expected the command's stderr: %v", r)
	}
	r = h.bangerIn(strings.NewReader("data\n"), "vm", "run", "--rm", "--", "cat")
	if r.code != 0 || r.stdout != "data\n" {
		t.Errorf("expected data and nothing else on stdout: %v", r)
	}
	h.empty()
}

func TestRunKeepsAStoppedMachineUnlessRm(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.ok("vm", "run", "--name", "kept", "--", "sh", "-c", "echo kept > /root/a")
	if !strings.Contains(r.stderr, "kept") {
		t.Errorf("expected stderr to say that the machine is kept: %v", r)
	}
	if vm := h.show("kept"); vm.Status != api.StatusStopped {
		t.Errorf("expected it stopped, it is %s", vm.Status)
	}
	h.ok("vm", "start", "kept")
	if got := h.sh("kept", "cat /root/a"); got != "kept" {
		t.Errorf("the file holds %q", got)
	}
}

func TestRmIsKeptByTheDaemonWhenTheCLIIsKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := h.command(ctx, "vm", "run", "--rm", "--name", "lost", "--", "sh", "-c", "echo up; exec sleep 600")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatalf("the command never began: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	h.eventually("the machine is deleted", patience, func() bool { return h.banger("vm", "show", "lost").code == 3 })
	h.empty()
}

func TestCtrlCWhileCreatingLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, delay := range []time.Duration{50 * time.Millisecond, 400 * time.Millisecond, 900 * time.Millisecond} {
		cmd := h.command(context.Background(), "vm", "run", "--vcpu", "1", "--memory", "512M", "--", "sleep", "600")
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay) // the moment of the Ctrl-C is what is varied
		_ = cmd.Process.Signal(syscall.SIGINT)
		if code := exitCode(t, cmd.Wait()); code != 130 {
			t.Errorf("after %v: expected 130, got %d: %s", delay, code, errOut.String())
		}
		h.empty()
	}
}

func TestCtrlCReachesTheCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("sig")
	cmd := h.command(context.Background(), "vm", "exec", "sig", "--", "sh", "-c", "trap 'echo got; exit 9' INT; echo up; while :; do sleep 0.1; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	n, _ := out.Read(buf)
	if code := exitCode(t, cmd.Wait()); code != 9 || string(buf[:n]) != "got\n" {
		t.Errorf("expected got and 9: %q %d", buf[:n], code)
	}
}

func TestExecStreams(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("x")
	t.Run("codes", func(t *testing.T) {
		for line, want := range map[string]int{"exit 3": 3, "kill -9 $$": 137, "kill -TERM $$": 143} {
			if r := h.banger("vm", "exec", "x", "--", "sh", "-c", line); r.code != want {
				t.Errorf("%s: expected %d: %v", line, want, r)
			}
		}
		if r := h.banger("vm", "exec", "x", "no-such-command"); r.code != 127 {
			t.Errorf("expected 127: %v", r)
		}
		if r := h.banger("vm", "exec", "x", "/etc/passwd"); r.code != 126 {
			t.Errorf("expected 126: %v", r)
		}
	})
	t.Run("the first word after the VM begins the command", func(t *testing.T) {
		if got := h.ok("vm", "exec", "x", "echo", "-n", "--json", "a  b").stdout; got != "--json a  b" {
			t.Errorf("argv changed: %q", got)
		}
	})
	t.Run("ends though stdout is inherited", func(t *testing.T) {
		r := h.ok("vm", "exec", "x", "--", "sh", "-c", "sleep 300 & echo done")
		if r.stdout != "done\n" || r.took > 100*time.Second {
			t.Errorf("expected done at once: %v after %v", r, r.took)
		}
	})
	t.Run("ends though stdin stays open", func(t *testing.T) {
		stdin, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		defer stdin.Close()
		if r := h.bangerIn(stdin, "vm", "exec", "x", "true"); r.code != 0 {
			t.Errorf("%v", r)
		}
	})
	t.Run("bytes both ways", func(t *testing.T) {
		data := make([]byte, 24<<20)
		_, _ = rand.Read(data)
		r := h.bangerIn(bytes.NewReader(data), "vm", "exec", "x", "--", "sh", "-c", "cat; echo e >&2")
		if r.code != 0 || r.stderr != "e\n" || !bytes.Equal([]byte(r.stdout), data) {
			t.Errorf("code %d, stderr %q, %d bytes of %d", r.code, r.stderr, len(r.stdout), len(data))
		}
		sum := sha256.Sum256(data)
		r = h.bangerIn(bytes.NewReader(data), "vm", "exec", "x", "sha256sum")
		if !strings.HasPrefix(r.stdout, hex.EncodeToString(sum[:])) {
			t.Errorf("%v", r)
		}
	})
	t.Run("what was written last", func(t *testing.T) { // by one that ends at once, into a pipe that nobody has read yet
		want := sha256.New()
		for i := range 9000 {
			fmt.Fprintln(want, i+1)
		}
		for range 10 {
			sum := sha256.Sum256([]byte(h.ok("vm", "exec", "x", "seq", "1", "9000").stdout))
			if !bytes.Equal(sum[:], want.Sum(nil)) {
				t.Fatal("bytes were lost")
			}
		}
	})
	t.Run("environment, folder and user", func(t *testing.T) {
		r := h.ok("vm", "exec", "-e", "A=1 2", "-w", "/usr", "x", "--", "sh", "-c", `echo "$A|$PWD|$HOME|$IS_SANDBOX|$TERM"`)
		if !strings.HasPrefix(r.stdout, "1 2|/usr|/root|1|") {
			t.Errorf("%v", r)
		}
		r = h.ok("vm", "exec", "-u", "nobody", "x", "--", "id", "-un")
		if r.stdout != "nobody\n" {
			t.Errorf("%v", r)
		}
		h.fails(125, []string{"no-such-user"}, "vm", "exec", "-u", "no-such-user", "x", "--", "true")
		h.fails(125, []string{"/no/such"}, "vm", "exec", "-w", "/no/such", "x", "--", "true")
	})
	t.Run("json", func(t *testing.T) {
		var res api.ExecResult
		h.json(&res, "vm", "exec", "--json", "--max-output", "1K", "x", "--", "sh", "-c", "seq 1 10000; echo e >&2")
		if !res.Truncated || len(res.Stdout) != 1024 || res.Stderr != "e\n" || res.ExitCode != 0 {
			t.Errorf("%+v", res)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		h.fails(124, nil, "vm", "exec", "--timeout", "1s", "x", "--", "sleep", "300")
	})
	t.Run("a hundred at once", func(t *testing.T) {
		errs := make(chan result, 100)
		for range 100 {
			go func() { errs <- h.bangerIn(strings.NewReader("ping"), "vm", "exec", "x", "cat") }()
		}
		for range 100 {
			if r := <-errs; r.code != 0 || r.stdout != "ping" {
				t.Errorf("%v", r)
			}
		}
	})
}

func TestExecIntoAStoppedMachine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("off", "--no-start")
	h.fails(125, []string{"hint:", "start"}, "vm", "exec", "off", "true")
	if r := h.ok("vm", "exec", "--start", "off", "--", "echo", "up"); r.stdout != "up\n" {
		t.Errorf("%v", r)
	}
}

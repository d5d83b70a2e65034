package tests

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

func TestBadFlagsSayTheCauseAndTheNextStep(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "create", "--no-start", "--name", "there")
	for _, c := range []struct {
		code  int
		words []string
		args  []string
	}{
		{2, []string{"Not_A_Name"}, []string{"vm", "create", "--name", "Not_A_Name"}},
		{2, []string{"hyphen"}, []string{"vm", "create", "--name", "-x-"}},
		{2, nil, []string{"vm", "create", "--name", strings.Repeat("a", 64)}},
		{2, []string{"4G"}, []string{"vm", "create", "--memory", "4"}},
		{2, []string{"memory"}, []string{"vm", "create", "--memory", "0"}},
		{2, []string{"memory"}, []string{"vm", "create", "--memory", "900G"}},
		{2, []string{"disk"}, []string{"vm", "create", "--disk-size", "8"}},
		{2, []string{"cpu"}, []string{"vm", "create", "--vcpu", "0"}},
		{2, []string{"cpu"}, []string{"vm", "create", "--vcpu", "5000"}},
		{2, nil, []string{"vm", "create", "--no-such-flag"}},
		{2, nil, []string{"vm", "no-such-verb"}},
		{2, []string{"--image"}, []string{"vm", "run", "debian-bookworm"}},
		{8, []string{"vm cp"}, []string{"vm", "run", "-v", "/a:/b"}},
		{3, []string{"debian-bookworm"}, []string{"vm", "create", "--image", "debian-bookwrm"}},
		{3, []string{"kernel"}, []string{"vm", "create", "--kernel", "no-such-kernel"}},
		{3, nil, []string{"vm", "show", "nope"}},
		{3, nil, []string{"vm", "stop", "nope"}},
		{2, []string{"accel"}, []string{"vm", "create", "--accel", "magic"}},
		{2, []string{"network"}, []string{"vm", "create", "--network", "magic"}},
		{8, nil, []string{"vm", "create", "--network", "bridge"}},
		{2, nil, []string{"vm", "create", "--driver", "xen"}},
		{4, []string{"there"}, []string{"vm", "create", "--name", "there"}},
	} {
		h.fails(c.code, c.words, c.args...)
	}
	var vms []api.VM
	h.json(&vms, "vm", "list", "--json")
	if len(vms) != 1 {
		t.Errorf("something was left: %+v", vms)
	}
}

func TestErrorsAsJSON(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	expect := func(code int, kind api.Kind, args ...string) {
		t.Helper()
		r := h.fails(code, nil, args...)
		var reply api.ErrorReply
		if err := json.Unmarshal([]byte(r.stderr), &reply); err != nil || reply.Error.Kind != kind || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%v: %v", err, r)
		}
		if r.stdout != "" {
			t.Errorf("stdout must be empty: %v", r)
		}
	}
	expect(3, api.KindNotFound, "vm", "show", "nope", "--json")
	expect(2, api.KindInvalid, "vm", "show", "nope", "--no-such-flag", "--json") // what is wrong is a flag
	h.env = append(h.env, "BANGER_ERROR_FORMAT=json")
	expect(3, api.KindNotFound, "vm", "show", "nope")
}

func TestUnknownConfigurationKeyNamesTheLine(t *testing.T) {
	t.Parallel()
	h := newEmptyHost(t)
	h.writeConfig("log_level = \"info\"\nno_such_key = 1\n")
	h.fails(2, []string{"no_such_key", "2", "config.toml"}, "vm", "list")
}

func (h *host) writeConfig(text string) {
	h.t.Helper()
	dir := filepath.Join(h.root, "config")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func TestCorruptDatabaseIsNamedAndKept(t *testing.T) {
	t.Parallel()
	h := newEmptyHost(t)
	if err := os.MkdirAll(filepath.Join(h.root, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.root, "state/banger.db")
	garbage := strings.Repeat("this is no database ", 400)
	if err := os.WriteFile(path, []byte(garbage), 0o600); err != nil {
		t.Fatal(err)
	}
	h.fails(1, []string{"banger.db"}, "vm", "list")
	if got, err := os.ReadFile(path); err != nil || string(got) != garbage {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestQEMUMissingAndTooOld(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.writeConfig("qemu_bin = \"/no/such/qemu\"\n")
	h.fails(7, []string{"/no/such/qemu", "hint:"}, "vm", "create", "--name", "a")
	h.empty()
	old := filepath.Join(h.root, "old-qemu")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'QEMU emulator version 5.2.0'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.ok("daemon", "stop")
	h.writeConfig("qemu_bin = \"" + old + "\"\n")
	h.fails(8, []string{"5.2.0", "7.2"}, "vm", "create", "--name", "a")
	h.empty()
	// Killed as soon as it starts.
	dying := filepath.Join(h.root, "dying-qemu")
	if err := os.WriteFile(dying, []byte("#!/bin/sh\n[ \"$1\" = --version ] && { echo 'QEMU emulator version 9.0.0'; exit; }\necho 'qemu: no luck today' >&2\nkill -9 $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.ok("daemon", "stop")
	h.writeConfig("qemu_bin = \"" + dying + "\"\n")
	r := h.banger("vm", "create", "--name", "a", "--accel", "tcg")
	if r.code == 0 || !strings.Contains(r.stderr, "no luck today") {
		t.Errorf("expected the VMM's own words: %v", r)
	}
}

func TestSocketPathTooLong(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	long := filepath.Join(h.root, strings.Repeat("a-long-folder-name/", 6))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(h.root, "state"), filepath.Join(long, "state")); err != nil {
		t.Fatal(err)
	}
	h.env = environ(long)
	h.create("deep")
	if got := h.sh("deep", "echo up"); got != "up" {
		t.Errorf("%q", got)
	}
	h.ok("vm", "delete", "--force", "deep")
	h.ok("daemon", "stop")
	h.env = environ(h.root)
}

func TestGarbageAndFloodsToTheAPI(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("calm")
	sock := filepath.Join(h.root, "run/daemon.sock")
	dial := func() (net.Conn, error) { return net.DialTimeout("unix", sock, 10*time.Second) }
	for _, garbage := range []string{"\x00\xff\xfe garbage\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "POST /v1/vms HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\n{{{", strings.Repeat("A", 2<<20)} {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = c.Write([]byte(garbage))
		_, _ = c.Read(make([]byte, 4096))
		c.Close()
	}
	var wg sync.WaitGroup
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}}
	for range 200 {
		wg.Go(func() {
			resp, err := client.Get("http://banger/v1/vms")
			if err != nil {
				t.Errorf("one of 200 connections: %v", err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("one of 200 connections: %s", resp.Status)
			}
		})
	}
	wg.Wait()
	client.CloseIdleConnections()
	h.sh("calm", "true")
}

func TestAnAgentThatNeverAnswersOrLies(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("liar")
	// Root in the guest takes the agent its link, and the machine its keyboard, so
	// that no power button is heard: no answer any more, but always a way out.
	h.banger("vm", "exec", "-d", "liar", "--", "sh", "-c", "sleep 0.2; ip link set eth0 down; echo i8042 > /sys/bus/platform/drivers/i8042/unbind; "+
		"cd /sys/bus/virtio/drivers/virtio_console; yes flood > /dev/vport0p1 & for d in virtio*; do echo $d > unbind; done")
	h.ok("vm", "list")
	h.eventually("it is silent", patience, func() bool { return h.banger("vm", "exec", "--timeout", "3s", "liar", "true").code != 0 })
	if r := h.fails(124, []string{"does not answer", "banger vm stop liar"}, "vm", "exec", "--timeout", "3s", "liar", "true"); r.took > patience/2 {
		t.Errorf("its time was over late: %v after %v", r, r.took)
	}
	h.ok("vm", "stop", "--timeout", "5s", "liar")
	if vm := h.show("liar"); vm.Status != api.StatusStopped || vm.Error == nil || !strings.Contains(vm.Error.Message, "was killed") {
		t.Errorf("expected it killed, and told: %s, %+v", vm.Status, vm.Error)
	}
	h.ok("vm", "start", "liar")
	h.sh("liar", "true")
}

func TestForeignOrReadOnlyRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		h := newEmptyHost(t)
		h.env = environ("/usr/banger-test")
		h.fails(6, []string{"/usr/banger-test"}, "vm", "list")
		h.env = environ(h.root)
		return
	}
	h := newEmptyHost(t)
	if err := os.MkdirAll(filepath.Join(h.root, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(h.root, "state"), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	h.fails(6, []string{"12345"}, "vm", "list")
	if err := os.RemoveAll(filepath.Join(h.root, "state")); err != nil {
		t.Fatal(err)
	}
}

func TestNotEnoughDiskIsSaidBeforeAnythingIsDone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fails(2, []string{"disk"}, "vm", "create", "--disk-size", "900T")
	h.empty()
}

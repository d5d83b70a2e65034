package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// fromTemplate says of each start of the VM whether it went on from a template.
func (h *host) fromTemplate(id string) []bool {
	h.t.Helper()
	var starts []bool
	var events []api.Event
	h.json(&events, "events", "--json")
	for _, e := range events {
		if e.Kind == "vm.started" && e.Target == id {
			starts = append(starts, e.Data["template"] == "true")
		}
	}
	return starts
}

// The first machine of a kind boots; later ones go on from a copy of a guest that
// was booted in the background, and have nothing of it or of each other.
func TestMachinesGoOnFromATemplate(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := os.RemoveAll(filepath.Join(h.root, "cache", "templates")); err != nil {
		t.Fatal(err)
	}
	first := h.create("first", "--memory", "384M")
	if got := h.fromTemplate(first.ID); len(got) != 1 || got[0] {
		t.Fatalf("the first of its kind: %v", got)
	}
	h.eventually("a template is made", 2*time.Minute, func() bool { return len(templates(h.root, 384<<20)) == 1 })

	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() {
			h.ok("vm", "create", "--name", name, "--vcpu", "1", "--memory", "384M", "--env", "WHO="+name)
		})
	}
	wg.Wait()
	seen := map[string]string{}
	for _, name := range []string{"first", "a", "b", "c"} {
		if name != "first" {
			if got := h.fromTemplate(h.show(name).ID); len(got) != 1 || !got[0] {
				t.Errorf("%s: %v", name, got)
			}
			if out := h.sh(name, "hostname; echo $WHO"); out != name+"\n"+name {
				t.Errorf("%s is told to be %q", name, out)
			}
		}
		// Nothing random is the same in two of them.
		out := h.sh(name, "cat /proc/sys/kernel/random/boot_id; head -c 32 /dev/urandom | base64; cat /proc/sys/kernel/random/uuid; "+
			"python3 -c 'import os; print(os.getrandom(16).hex()); print(open(\"/proc/self/auxv\",\"rb\").read() and 1)'; cat /proc/self/stat | cut -d\" \" -f 28")
		for _, line := range strings.Split(out, "\n") {
			if other := seen[line]; len(line) > 10 && other != "" && other != name {
				t.Errorf("%s and %s have %q in common", name, other, line)
			}
			seen[line] = name
		}
		// What a command sees of the hardware is its own.
		if out := h.sh(name, "cat /sys/class/net/eth0/address; awk '/MemTotal/ {print ($2 > 300000 && $2 < 400000)}' /proc/meminfo; dmesg | grep -cE 'BUG:|WARNING:|Call Trace|stall' || true"); out != "52:54:00:ba:00:02\n1\n0" { // network.DefaultUser
			t.Errorf("%s has address, memory, complaints of its kernel: %q", name, out)
		}
		h.sh(name, "getent hosts localhost && ip route | grep -q default && echo "+name+" > /root/mine && echo "+name+" > /etc/mine && sync")
	}

	// Its disks are its own, from one start to the next and under load.
	h.ok("vm", "restart", "a")
	if got := h.fromTemplate(h.show("a").ID); len(got) != 2 || !got[1] {
		t.Errorf("its second start: %v", got)
	}
	if out := h.sh("a", "cat /root/mine /etc/mine; dd if=/dev/urandom of=/root/big bs=1M count=64 status=none; sha256sum /root/big | cut -c1-64; sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum /root/big | cut -c1-64"); !strings.HasPrefix(out, "a\na\n") ||
		out[4:68] != out[69:133] {
		t.Errorf("after a restart: %q", out)
	}
	// The template's clock stands still since long ago.
	now, err := strconv.ParseFloat(strings.TrimSpace(h.ok("vm", "run", "--rm", "--vcpu", "1", "--memory", "384M", "--", "date", "+%s.%N").stdout), 64)
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Since(time.UnixMicro(int64(now * 1e6))); off.Abs() > 5*time.Second {
		t.Errorf("the first command's clock is wrong by %s", off)
	}
	if n := len(templates(h.root, 384<<20)); n != 1 {
		t.Errorf("%d templates", n)
	}
}

// Whatever is wrong with a template, the machine comes up, and the template goes.
func TestADamagedTemplate(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(state string) []byte{
		"garbage": func(string) []byte { return []byte("no state of a machine") },
		"empty":   func(string) []byte { return nil },
		"half":    func(state string) []byte { return []byte(state[:len(state)/2]) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.create("before")
			h.eventually("a template is there", 2*time.Minute, func() bool { return len(templates(h.root, 512<<20)) == 1 })
			path := filepath.Join(templates(h.root, 512<<20)[0], "state")
			state, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// Others have the file too.
			if err := os.WriteFile(path+".new", damage(string(state)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
			vm := h.create("after")
			if out := h.sh("after", "echo up"); out != "up" {
				t.Errorf("%q", out)
			}
			if got := h.fromTemplate(vm.ID); len(got) != 1 || got[0] {
				t.Errorf("its start: %v", got)
			}
			h.eventually("the template goes", 10*time.Second, func() bool { return len(templates(h.root, 512<<20)) == 0 })
			log, err := os.ReadFile(filepath.Join(h.root, "state", "daemon.log"))
			if err != nil || !strings.Contains(string(log), "removing a template") {
				t.Errorf("the daemon's log says nothing of it: %v", err)
			}
		})
	}
}

// Who wants none has none.
func TestNoTemplates(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.env = append(h.env, "BANGER_TEMPLATES=false")
	vm := h.create("a")
	if got := fmt.Sprint(h.fromTemplate(vm.ID)); got != "[false]" {
		t.Errorf("its start: %s", got)
	}
}

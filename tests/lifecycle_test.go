package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

func TestNamesAreTakenExactlyAndFoundByPrefix(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "create", "--no-start", "--name", "beta-sandbox")
	if vm := h.show("beta"); vm.Name != "beta-sandbox" {
		t.Errorf("the prefix beta found %q", vm.Name)
	}
	h.ok("vm", "create", "--no-start", "--name", "beta")
	h.fails(4, []string{"beta", "hint:"}, "vm", "create", "--no-start", "--name", "beta")
	h.ok("vm", "create", "--no-start", "--name", "beta-two")
	r := h.fails(2, []string{"beta-sandbox", "beta-two"}, "vm", "show", "beta-")
	if strings.Contains(r.stderr, "beta,") {
		t.Errorf("candidates name more than fits: %v", r)
	}
	h.fails(3, []string{"beta-s"}, "vm", "delete", "--yes", "beta-s") // what cannot be taken back wants an exact name
	h.ok("vm", "delete", "--yes", "beta-sandbox", "beta", "beta-two")
	h.empty()
}

func TestRestartKeepsBothDisks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("beta")
	h.sh("beta", "echo kept > /root/a; echo kept > /etc/b")
	h.ok("vm", "restart", "beta")
	if got := h.sh("beta", "cat /root/a /etc/b"); got != "kept\nkept" {
		t.Errorf("after a restart: %q", got)
	}
	// Written and not synced by anyone: stop flushes.
	h.sh("beta", "head -c 20000000 /dev/urandom > /root/big; sha256sum /root/big | cut -c1-64 > /var/sum")
	r := h.ok("vm", "stop", "beta")
	if strings.Contains(r.stderr, "killed") {
		t.Errorf("an idle machine had to be killed: %v", r)
	}
	h.ok("vm", "start", "beta")
	if got := h.sh("beta", "sha256sum /root/big | cut -c1-64 | cmp - /var/sum && echo same"); got != "same" {
		t.Errorf("bytes were lost: %q", got)
	}
	// Whatever a kill loses, it is not what was synced.
	h.sh("beta", "echo synced > /root/s; sync")
	h.ok("vm", "kill", "beta")
	h.ok("vm", "start", "beta")
	if got := h.sh("beta", "cat /root/s /root/a /etc/b"); got != "synced\nkept\nkept" {
		t.Errorf("after a kill: %q", got)
	}
}

func TestStopEndsProcessesInOrder(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("s")
	h.ok("vm", "exec", "-d", "s", "--", "sh", "-c", "trap 'echo term > /root/saw; exit' TERM; touch /root/up; while :; do sleep 0.1; done")
	h.ok("vm", "exec", "-d", "s", "--", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
	h.eventually("the first process runs", patience, func() bool { return h.sh("s", "ls /root/up 2>/dev/null || true") != "" })
	h.ok("vm", "stop", "s")
	h.ok("vm", "start", "s")
	if got := h.sh("s", "cat /root/saw"); got != "term" {
		t.Errorf("expected the process to see TERM before the end: %q", got)
	}
}

func TestAgainIsSafe(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("again")
	var vm api.VM
	h.json(&vm, "vm", "start", "again", "--json")
	if vm.Changed {
		t.Error("a second start changed something")
	}
	h.ok("vm", "stop", "again")
	h.ok("vm", "stop", "again")
	h.ok("vm", "delete", "--force", "again")
	h.ok("vm", "delete", "--force", "again")
	h.fails(3, nil, "vm", "delete", "--yes", "again")
}

func TestRequestIDGivesTheSameMachine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var a, b api.VM
	h.json(&a, "vm", "create", "--no-start", "--request-id", "r1", "--memory", "512M", "--json")
	h.json(&b, "vm", "create", "--no-start", "--request-id", "r1", "--memory", "512M", "--json")
	if a.ID != b.ID || b.Changed {
		t.Errorf("expected one machine: %s %s changed=%v", a.ID, b.ID, b.Changed)
	}
	h.fails(4, nil, "vm", "create", "--no-start", "--request-id", "r1", "--memory", "1G")
}

func TestDeleteWantsConsentAndAStoppedMachine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("d")
	h.fails(2, []string{"--yes"}, "vm", "delete", "d")
	h.fails(5, []string{"running"}, "vm", "delete", "--yes", "d")
	h.ok("vm", "delete", "--force", "d")
	h.empty()
}

func TestSeveralReferencesAreAllTried(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "create", "--no-start", "--name", "one")
	h.ok("vm", "create", "--no-start", "--name", "two")
	r := h.banger("vm", "delete", "--yes", "--json", "one", "nope", "two")
	var results []api.Result
	if err := json.Unmarshal([]byte(r.stdout), &results); err != nil || len(results) != 3 || r.code != 3 {
		t.Fatalf("%v: %v", err, r)
	}
	if !results[0].OK || results[1].OK || !results[2].OK || results[1].Error.Kind != api.KindNotFound {
		t.Errorf("%+v", results)
	}
	h.empty()
}

func TestRename(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.create("old")
	h.ok("vm", "create", "--no-start", "--name", "taken")
	h.fails(4, nil, "vm", "rename", "old", "taken")
	h.fails(2, nil, "vm", "rename", "old", "Not_A_Name")
	h.ok("vm", "rename", "old", "new")
	if got := h.show("new"); got.ID != vm.ID || got.Status != api.StatusRunning {
		t.Errorf("%+v", got)
	}
	h.fails(3, nil, "vm", "show", "old")
}

func TestSetGrowsDisksAndRefusesToShrink(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("g", "--disk-size", "2G", "--system-overlay-size", "2G")
	before := h.sh("g", "echo data > /root/keep; df -k /root | tail -1 | awk '{print $2}'")
	h.fails(2, []string{"shrink"}, "vm", "set", "g", "--disk-size", "1G")
	h.ok("vm", "set", "g", "--disk-size", "3G", "--vcpu", "2", "--memory", "600M")
	h.ok("vm", "restart", "g")
	after := h.sh("g", "df -k /root | tail -1 | awk '{print $2}'; cat /root/keep; nproc; awk '/MemTotal/{print int($2/1024)}' /proc/meminfo")
	lines := strings.Fields(after)
	if len(lines) != 4 || lines[1] != "data" || lines[2] != "2" {
		t.Fatalf("before %s, after %q", before, after)
	}
	if len(lines[0]) < len(before) || lines[0] <= before {
		t.Errorf("the disk did not grow: %s, then %s KiB", before, lines[0])
	}
	if vm := h.show("g"); vm.VCPUs != 2 || vm.MemoryBytes != 600<<20 || vm.DiskBytes != 3<<30 || len(vm.Pending) != 0 {
		t.Errorf("%+v", vm)
	}
}

func TestDiskGrowsOnline(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("g", "--disk-size", "1G")
	mebibytes := func() int {
		t.Helper()
		n, err := strconv.Atoi(h.sh("g", "df -BM --output=size /root | tail -1 | tr -dc 0-9"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := mebibytes()
	h.ok("vm", "set", "g", "--disk-size", "2G")
	if after := mebibytes(); after < before+900 {
		t.Errorf("expected 1024 MiB more without a restart: %d, then %d", before, after)
	}
}

func TestWaitAndObservedEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("w")
	var wg sync.WaitGroup
	wg.Go(func() { h.ok("vm", "wait", "w", "--for", "stopped", "--timeout", "300s") })
	h.banger("vm", "exec", "w", "--", "sh", "-c", "poweroff -f || echo o > /proc/sysrq-trigger")
	wg.Wait()
	if vm := h.show("w"); vm.Status != api.StatusStopped {
		t.Errorf("after a power-off inside: %+v", vm)
	}
	h.ok("vm", "start", "w")
	h.banger("vm", "exec", "-d", "w", "--", "sh", "-c", "sleep 0.2; echo c > /proc/sysrq-trigger")
	h.eventually("the panic is seen", patience, func() bool { return h.show("w").Status == api.StatusStopped })
	if vm := h.show("w"); vm.Error == nil || !strings.Contains(vm.Error.Message, "panic") {
		t.Errorf("expected the panic as the reason: %+v", vm.Error)
	}
	if r := h.ok("vm", "logs", "--console", "w"); !strings.Contains(r.stdout, "Kernel panic") {
		t.Errorf("expected the panic in the console log: %s", clip(r.stdout))
	}
}

func TestEightCreatesAtOnceOverlap(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	began := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { h.ok("vm", "create", "--vcpu", "1", "--memory", "512M") })
	}
	wg.Wait()
	var ops []api.Operation
	h.json(&ops, "operation", "list", "--json")
	ended := map[string]time.Time{} // by VM
	for _, op := range ops {
		if op.Kind == "vm.create" && op.FinishedAt != nil && op.CreatedAt.After(began) {
			ended[op.Target] = *op.FinishedAt
		}
	}
	var vms []api.VM
	h.json(&vms, "ps", "--json")
	if len(vms) != 8 || len(ended) != 8 {
		t.Fatalf("expected 8 running and 8 operations, got %d and %d", len(vms), len(ended))
	}
	// Each was launched before the one launched before it had booted.
	slices.SortFunc(vms, func(a, b api.VM) int { return a.StartedAt.Compare(*b.StartedAt) })
	for i, vm := range vms[1:] {
		if before := vms[i]; vm.StartedAt.After(ended[before.ID]) {
			t.Errorf("%s was launched at %v, when %s was there since %v: they do not overlap", vm.Name, vm.StartedAt, before.Name, ended[before.ID])
		}
	}
}

func TestOneBrokenMachineNeverBreaksList(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.create("fine")
	broken := h.create("torn")
	// Its handle is garbage, and its folder loses the disks under it.
	if err := os.WriteFile(filepath.Join(h.root, "state/vms", broken.ID, "handle.json"), []byte("{garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.ok("daemon", "restart")
	if got := h.sh("torn", "echo alive"); got != "alive" {
		t.Errorf("a corrupt handle file was not rebuilt by observation: %q", got)
	}
	h.ok("vm", "stop", "torn")
	if err := os.Remove(filepath.Join(h.root, "state/vms", broken.ID, "work.ext4")); err != nil {
		t.Fatal(err)
	}
	h.ok("daemon", "restart")
	var vms []api.VM
	h.json(&vms, "vm", "list", "--json")
	if len(vms) != 2 {
		t.Errorf("expected both listed: %+v", vms)
	}
	h.fails(5, []string{"work.ext4", "missing"}, "vm", "start", "torn")
	if got := h.sh(vm.ID, "echo alive"); got != "alive" {
		t.Errorf("the other machine suffered: %q", got)
	}
}

func TestPruneListsFirst(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "create", "--no-start", "--name", "gone", "--label", "temp=1")
	h.ok("vm", "create", "--no-start", "--name", "stays")
	if r := h.ok("vm", "prune", "--dry-run", "--filter", "label=temp"); !strings.Contains(r.stdout, "gone") || strings.Contains(r.stdout, "stays") {
		t.Errorf("%v", r)
	}
	h.show("gone")
	h.fails(2, []string{"--yes"}, "vm", "prune", "--filter", "label=temp")
	h.ok("vm", "prune", "--yes", "--filter", "label=temp")
	h.fails(3, nil, "vm", "show", "gone")
	h.show("stays")
}

func TestOperationsAndEvents(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.ok("vm", "create", "--no-wait", "--name", "bg", "--vcpu", "1", "--memory", "512M")
	id := strings.TrimSpace(r.stdout)
	var op api.Operation
	h.json(&op, "operation", "wait", id, "--json")
	if op.Status != api.OperationSucceeded || op.Kind != "vm.create" || len(op.Steps) == 0 {
		t.Errorf("%+v", op)
	}
	if r := h.ok("events", "--json"); !strings.Contains(r.stdout, "vm.create") && !strings.Contains(r.stdout, "vm.start") {
		t.Errorf("expected the creation among the events: %s", clip(r.stdout))
	}
	h.fails(3, nil, "operation", "show", "no-such-operation")
	h.ok("operation", "prune", "--yes")
	h.fails(3, nil, "operation", "show", id)
}

// The home is filled without waiting for the disk: a machine killed in its
// first moments must find it whole or fill it again, never half or empty.
func TestANewHomeSurvivesAKill(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const look = `cd /root && md5sum .bashrc .profile && stat -c "%a %u:%g" . .bashrc .profile`
	h.create("whole")
	want := h.sh("whole", look)
	for _, delay := range []time.Duration{0, 200 * time.Millisecond, time.Second} {
		h.create("cut")
		time.Sleep(delay) // the moment is what is varied
		h.ok("vm", "kill", "cut")
		h.ok("vm", "start", "cut")
		if got := h.sh("cut", look); got != want {
			t.Errorf("killed after %v:\n%s\nwant\n%s", delay, got, want)
		}
		h.ok("vm", "delete", "--force", "cut")
	}
}

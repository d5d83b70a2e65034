//go:build !race

// With the race detector programs are linked dynamically, and such a Firecracker
// has no cell of its own files.

package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/host/cgroup"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/vmmtest"
)

// victim is another machine: a real one where the lab's row says so.
func victim(t *testing.T) (*Machine, vmm.Spec) {
	t.Helper()
	if os.Getenv("BANGER_TEST_VICTIM") != "real" {
		spec := diskSpec(t, "victim")
		return start(t, sound().driver(t), spec, io.Discard), spec
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec := vmmtest.RealSpecs(t, vmm.KVM, guestapi.TransportVsock, "")(t)
	return start(t, New(Options{Self: self}, slog.New(slog.DiscardHandler)), spec, io.Discard), spec
}

// diskSpec is a machine with a disk and an initramfs of its own.
func diskSpec(t *testing.T, id string) vmm.Spec {
	t.Helper()
	spec := testSpec(t)
	spec.ID, spec.Initrd = id, filepath.Join(spec.RunDir, "initrd")
	disk := filepath.Join(spec.RunDir, "disk")
	for _, path := range []string{spec.Initrd, disk} {
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec.Disks = []vmm.Disk{{Path: disk, Serial: "work"}}
	return spec
}

// A VMM that was taken over gets at nothing of the host's and of other machines':
// neither in its cell, nor with its identity outside of it.
func TestBreakOut(t *testing.T) {
	t.Parallel()
	needTun(t)
	other, spec := victim(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	b := burglary{
		Files: []string{spec.Initrd, spec.RunDir}, PID: other.PID(), TCP: tcp.Addr().String(),
		Sockets: []string{filepath.Join(other.folder, apiSocket), filepath.Join(spec.RunDir, "keeper.sock")},
	}
	for _, d := range spec.Disks {
		if !d.ReadOnly {
			b.Files = append(b.Files, d.Path)
		}
	}
	keeper, err := net.Listen("unix", b.Sockets[1])
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()

	s, mine := sound(), diskSpec(t, "burglar")
	s.Breaks = &b
	mine.Network = &vmm.NIC{MAC: "52:54:00:00:00:01", MTU: 1500}
	abstract, err := net.Listen("unix", "@"+filepath.Base(mine.RunDir))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	s.Breaks.Sockets = append(s.Breaks.Sockets, "@"+filepath.Base(mine.RunDir))
	var out text
	m := start(t, s.driver(t), mine, &out)
	var got loot
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if got, err = decodeLoot(out.String()); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the burglar says nothing: %q", out.String())
		}
	}
	if len(got.Got) > 0 {
		t.Errorf("in its cell it could:\n%s", strings.Join(got.Got, "\n"))
	}
	if diff := cmp.Diff([]string{"dev", "disk0", "initrd", "kernel", "run", "vmm"}, got.Root); diff != "" {
		t.Errorf("its files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bridge", "lo", "ours", "tap"}, got.Nets); diff != "" {
		t.Errorf("its network devices (-want +got):\n%s", diff)
	}
	if limit := mine.VCPUs + spareThreads; got.Born == 0 || got.Born > limit {
		t.Errorf("it made %d processes, %d are its limit", got.Born, limit)
	}
	if os.Geteuid() != 0 {
		return // its identity outside is ours
	}
	if m.who == nil || other.who == nil || m.who.uid == other.who.uid {
		t.Fatalf("identities %+v and %+v", m.who, other.who)
	}
	if got := outside(t, b, m.who.uid); len(got.Got) > 0 || got.UID != m.who.uid {
		t.Errorf("with its identity %d (%d) outside its cell it could:\n%s", m.who.uid, got.UID, strings.Join(got.Got, "\n"))
	}
}

// outside runs the burglary as that user of the host.
func outside(t *testing.T, b burglary, uid int) (l loot) {
	t.Helper()
	b.Sockets = b.Sockets[:2] // an abstract one is open to everybody on a host
	dir, err := os.MkdirTemp("/var/tmp", "banger-burglar")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "burglar")
	if out, err := exec.Command("cp", self, program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{dir, program} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Args = []string{"burglar"}
	cmd.Stdin = bytes.NewReader(in)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if l, err = decodeLoot(string(out)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return l
}

// What banger's owner alone may read is lent to the user of a root's VMM, and the
// devices are its own, whatever the keeper's umask.
func TestPrivateFilesAreLent(t *testing.T) {
	t.Parallel()
	needTun(t)
	spec := diskSpec(t, "t")
	base := filepath.Join(spec.RunDir, "base")
	if err := os.WriteFile(base, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(base, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	spec.Disks = append(spec.Disks, vmm.Disk{Path: base, Serial: "root", ReadOnly: true})
	s := sound()
	s.Reads = []string{"/kernel", "/disk0", "/disk1", "/initrd", "/dev/urandom", "/dev/net/tun"}
	spec.Network = &vmm.NIC{MAC: "52:54:00:00:00:01", MTU: 1500}
	start(t, s.driver(t), spec, io.Discard)
	var st syscall.Stat_t
	if err := syscall.Stat(base, &st); err != nil || st.Mode&0o777 != 0o400 || os.Geteuid() == 0 && st.Uid != 12345 {
		t.Errorf("the file is changed: %o of %d, %v", st.Mode, st.Uid, err)
	}
}

// A control group holds the limits while the machine runs, and is gone after its
// end; one that a keeper's death left goes when it is asked for.
func TestControlGroup(t *testing.T) {
	t.Parallel()
	if err := cgroup.Check(); err != nil {
		noControlGroup(t, err)
		return
	}
	place, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	if missing := place.Missing(); len(missing) > 0 {
		t.Errorf("controllers %v are missing", missing)
	}
	spec := testSpec(t)
	spec.ID = fmt.Sprint("group-", os.Getpid())
	spec.VCPUs = 2
	m := start(t, sound().driver(t), spec, io.Discard)
	dir := groupOf(t, m.PID())
	if filepath.Base(dir) != spec.ID {
		t.Fatalf("it is in group %s", dir)
	}
	for file, want := range map[string]string{
		"memory.max": fmt.Sprint(128<<20 + 16<<20 + 128<<20), "memory.oom.group": "1", "pids.max": "18", "cpu.max": "300000 100000",
	} {
		if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s is %q, %v; want %s", file, b, err, want)
		}
	}
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
	awaitEnd(t, m)
	gone(t, dir)

	// What a dead keeper left.
	g, err := place.Make(spec.ID, cgroup.Limits{Processes: 10})
	if err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "1000")
	sleep.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.Folder().Fd())}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cgroup.Remove(spec.ID); err != nil {
		t.Error(err)
	}
	if err := sleep.Wait(); err == nil || sleep.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("what was in it ended with %v", err)
	}
	gone(t, dir)
}

// noControlGroup checks that a machine starts without, and that it is said.
func noControlGroup(t *testing.T, why error) {
	if api.KindOf(why) != api.KindUnsupported {
		t.Errorf("no control groups: %v", why)
	}
	var log text
	d := sound().driver(t)
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	start(t, d, testSpec(t), io.Discard)
	if !strings.Contains(log.String(), "no limits of a control group") || !strings.Contains(log.String(), why.Error()) {
		t.Errorf("the log says %q, and not %v", log.String(), why)
	}
}

// An ordinary user to whom a part of the tree was delegated has the limits too: the
// keeper moves aside, the VMM gets a group.
func TestDelegatedControlGroup(t *testing.T) {
	t.Parallel()
	switch err := cgroup.Check(); {
	case err != nil:
		noControlGroup(t, err)
		return
	case os.Geteuid() != 0:
		return // nobody can delegate anything here
	}
	if _, err := cgroup.Find(); err != nil { // which gives the parts of the tree their controllers
		t.Fatal(err)
	}
	const user = 1000
	dir, err := os.MkdirTemp("/var/tmp", "banger-delegated")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, kernel, run := filepath.Join(dir, "stub-firecracker"), filepath.Join(dir, "kernel"), filepath.Join(dir, "run")
	if err := os.Rename(sound().install(t), program); err != nil {
		if out, err := exec.Command("cp", sound().install(t), program).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	part := fmt.Sprintf("/sys/fs/cgroup/banger-test-%d", os.Getpid())
	for _, err := range []error{os.WriteFile(kernel, nil, 0o600), os.Mkdir(run, 0o700), os.Mkdir(part, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{
		dir, program, kernel, run, part, part + "/cgroup.procs", part + "/cgroup.subtree_control", part + "/cgroup.threads",
	} {
		if err := os.Chown(path, user, user); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := os.Open(part)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	cmd := exec.Command(program, "keeper", program, kernel, run)
	cmd.Args[0] = "keeper" // and no stub
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: user, Gid: user}, UseCgroupFD: true, CgroupFD: int(fd.Fd()),
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, scanErr := fmt.Fscan(out, &pid)
	if scanErr == nil {
		group := groupOf(t, pid)
		if group != part+"/banger/t" {
			t.Errorf("the VMM is in group %s", group)
		}
		if b, err := os.ReadFile(group + "/pids.max"); err != nil || string(b) != "17\n" {
			t.Errorf("pids.max is %q, %v", b, err)
		}
		if got := groupOf(t, cmd.Process.Pid); got != part+"/banger-daemon" {
			t.Errorf("the keeper is in group %s", got)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if scanErr != nil {
		t.Fatalf("the keeper says nothing: %v", scanErr)
	}
	for _, group := range []string{"/banger/t", "/banger", "/banger-daemon", ""} {
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if err := syscall.Rmdir(part + group); err == nil || errors.Is(err, syscall.ENOENT) {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%s%s stays: %v", part, group, err)
			}
		}
	}
}

// A VMM that takes more memory than it may is ended, and that is told.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	if err := cgroup.Check(); err != nil {
		noControlGroup(t, err)
		return
	}
	s, spec := sound(), testSpec(t)
	spec.ID = fmt.Sprint("greedy-", os.Getpid())
	s.Takes = 512 << 20
	var out text
	m := start(t, s.driver(t), spec, &out)
	got := awaitEnd(t, m)
	if got.Reason != vmm.ReasonCrashed || !strings.Contains(got.Detail, "more memory than its control group may") {
		t.Errorf("ended with %+v; it said %q", got, out.String())
	}
}

func groupOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, path, ok := strings.Cut(string(b), "0::")
	if !ok {
		t.Fatalf("no group of version 2: %s", b)
	}
	return filepath.Join("/sys/fs/cgroup", strings.TrimSpace(path))
}

func gone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

// Two machines whose ids give the same number have two users all the same.
func TestIdentitiesAreUnique(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := claim("unique")
	if err != nil {
		t.Fatal(err)
	}
	b, err := claim("unique")
	if err != nil {
		t.Fatal(err)
	}
	defer b.release()
	if os.Geteuid() != 0 {
		if a != nil || b != nil {
			t.Errorf("an ordinary user has %+v and %+v", a, b)
		}
		return
	}
	if a.uid == b.uid || a.uid < firstUID || b.uid >= firstUID+countUID {
		t.Errorf("users %d and %d", a.uid, b.uid)
	}
	a.release()
	// A child forked meanwhile holds it for a moment.
	for {
		c, err := claim("unique")
		if err != nil {
			t.Fatal(err)
		}
		c.release()
		if c.uid == a.uid {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("given back, user %d is not taken again, but %d", a.uid, c.uid)
		}
	}
}

func TestMapHas(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"         0          0 4294967295\n":       true,
		"0 100000 65536\n":                         false,
		"0 1000 1\n1 100000 4294967000\n":          true,
		"":                                         false,
		"x y z\n1879048192 0 10\n":                 false,
		"0 0 18446744073709551616\n":               false,
		"1879048192 5 267386880\n4000000000 1 1\n": true,
	} {
		if got := mapHas([]byte(text), firstUID, countUID); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

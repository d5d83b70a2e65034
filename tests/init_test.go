package tests

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
)

// tree is a minimal Debian with these packages, as an archive that is kept in
// the base root.
func tree(t *testing.T, packages string) string {
	t.Helper()
	path := filepath.Join(baseRoot, "tree-"+strings.ReplaceAll(packages, ",", "-")+".tar")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	tmp := strings.TrimSuffix(path, ".tar") + ".tmp.tar"
	if out, err := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--include="+packages, "bookworm", tmp).CombinedOutput(); err != nil {
		t.Fatalf("cannot make a Debian with %s: %v: %s", packages, err, out)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// with makes the filler of an image out of an archive and files of the test's.
func with(t *testing.T, archive string, more ...file) func(*tar.Writer) error {
	ours := map[string]bool{}
	for _, f := range more {
		ours[f.name] = true
	}
	return func(tw *tar.Writer) error {
		f, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer f.Close()
		for tr := tar.NewReader(f); ; {
			head, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return files(more...)(tw)
			}
			if err != nil {
				return err
			}
			path, err := ext4.MemberPath(head.Name)
			if err != nil {
				return err
			}
			if ours[path] {
				continue
			}
			target := ""
			if head.Typeflag == tar.TypeLink {
				if target, err = ext4.MemberPath(head.Linkname); err != nil {
					return err
				}
			}
			if path == "" {
				path = "./"
			}
			if err := tw.WriteHeader(ext4.Member(head, path, target)); err != nil {
				return err
			}
			if _, err := io.Copy(tw, tr); err != nil {
				return err
			}
		}
	}
}

const keeperUnit = `[Unit]
Description=Says in which order it is stopped

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo in order >> /root/stopped'

[Install]
WantedBy=multi-user.target
`

const badUnit = `[Service]
Type=oneshot
ExecStart=/bin/false

[Install]
WantedBy=multi-user.target
`

func TestSystemdAsTheImagesInit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.image("sysd", api.ImageConfig{}, with(t, tree(t, "systemd-sysv,dbus,kmod,udev,iproute2"),
		file{name: "etc/systemd/system/keeper.service", data: keeperUnit, mode: 0o644},
		file{name: "etc/systemd/system/bad.service", data: badUnit, mode: 0o644},
		file{name: "etc/systemd/system/multi-user.target.wants/keeper.service", link: "../keeper.service"},
		file{name: "etc/fstab", data: "UUID=0a1b /  ext4 errors=remount-ro 0 1\nLABEL=data /data ext4 defaults 0 2\ntmpfs /scratch tmpfs size=1M 0 0\n", mode: 0o644},
		file{name: "etc/machine-id", mode: 0o444},
	))
	flags := []string{"--name", "sysd", "--init", "image", "--image", "sysd", "--vcpu", "1", "--memory", "512M"}
	r := h.ok(append(append([]string{"vm", "run"}, flags...), "--", "systemctl", "is-system-running")...)
	if r.stdout != "running\n" {
		t.Errorf("%v", r)
	}
	if vm := h.show("sysd"); vm.Status != api.StatusStopped || vm.Error != nil || vm.Init != "image" || vm.InitReason != "asked for" {
		t.Errorf("after the run: %+v", vm)
	}
	h.ok("vm", "start", "sysd")
	vm := h.show("sysd")
	if vm.InitState != "running" || len(vm.FailedUnits) > 0 || len(vm.Warnings) > 0 {
		t.Errorf("the state %q, failed %q, warnings %q", vm.InitState, vm.FailedUnits, vm.Warnings)
	}
	for what, line := range map[string]string{
		"stopped in order":     `[ "$(sort -u /root/stopped)" = "in order" ] || cat /root/stopped`, // again where rescue.target came before
		"process 1":            `[ "$(cat /proc/1/comm)" = systemd ] || cat /proc/1/comm`,
		"its own cgroup":       `grep -qx 0::/banger /proc/self/cgroup || cat /proc/self/cgroup`,
		"the same mounts":      `[ "$(readlink /proc/self/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || readlink /proc/1/ns/mnt`,
		"host name":            `[ "$(uname -n)" = sysd ] || uname -n`,
		"machine id":           `grep -qxE '[0-9a-f]{32}' /etc/machine-id || cat /etc/machine-id`,
		"fstab":                `findmnt -no FSTYPE /scratch | grep -qx tmpfs && ! findmnt /data || cat /etc/fstab`,
		"network":              `ip -4 -o addr show eth0 | grep -q 'inet ' && ip route | grep -q '^default ' || ip a`,
		"the agent outlives":   `systemctl daemon-reexec && systemctl daemon-reload && systemctl isolate rescue.target && systemctl isolate multi-user.target`,
		"zombies":              `(sh -c 'sleep 0.1 & exec true'); sleep 1; ! grep -l '^State:.Z' /proc/[0-9]*/status`,
		"a service by systemd": `systemd-run --wait --pipe -q echo from a unit | grep -v '^from a unit$'; true`,
	} {
		if r := h.banger("vm", "exec", "sysd", "--", "sh", "-c", line); r.stdout != "" || r.code != 0 {
			t.Errorf("%s: %v", what, r)
		}
	}
	if r := h.bangerIn(strings.NewReader("tty; exit 5\n"), "vm", "exec", "-t", "sysd", "--", "bash", "-i"); r.code != 5 || !strings.Contains(r.stdout, "/dev/pts/") {
		t.Errorf("a terminal: %v", r)
	}
	h.sh("sysd", "systemctl enable -q bad.service")
	h.banger("vm", "exec", "-d", "sysd", "--", "sh", "-c", "kill -INT 1") // what the kernel sends init at ctrl-alt-del
	h.ok("vm", "wait", "sysd", "--for", "stopped", "--timeout", "300s")
	h.ok("vm", "start", "sysd")
	vm = h.show("sysd")
	if d := cmp.Diff([]string{"bad.service"}, vm.FailedUnits); vm.InitState != "degraded" || d != "" {
		t.Errorf("the state %q: %s", vm.InitState, d)
	}
	if got := h.sh("sysd", "cat /root/stopped"); got != "in order\nin order\nin order" { // a stop, isolate, ctrl-alt-del
		t.Errorf("stopped in order: %q", got)
	}
}

const stopScript = `#!/bin/sh
### BEGIN INIT INFO
# Provides: witness
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 6
### END INIT INFO
[ "$1" != stop ] || echo "in order, $RUNLEVEL" >> /root/stopped
`

func TestSysvinitChosenByWhatTheImageRuns(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.image("sysv", api.ImageConfig{Cmd: []string{"/sbin/init"}}, with(t, tree(t, "sysvinit-core,procps"),
		file{name: "etc/init.d/witness", data: stopScript},
		file{name: "etc/init.d/.legacy-bootordering", data: "the links below count, not the dependencies insserv noted\n"},
		file{name: "etc/rc2.d/S01witness", link: "../init.d/witness"},
		file{name: "etc/rc0.d/K01witness", link: "../init.d/witness"},
	))
	r := h.ok("vm", "run", "--name", "sysv", "--image", "sysv", "--vcpu", "1", "--memory", "512M", "--", "cat", "/proc/1/comm")
	if r.stdout != "init\n" {
		t.Errorf("%v", r)
	}
	if vm := h.show("sysv"); vm.Status != api.StatusStopped || vm.Error != nil || vm.Init != "image" || vm.InitReason != "the image runs /sbin/init" {
		t.Errorf("after the run: %+v", vm)
	}
	h.ok("vm", "start", "sysv")
	if got := h.sh("sysv", "cat /root/stopped"); got != "in order, 0" {
		t.Errorf("got %q", got)
	}
	if vm := h.show("sysv"); vm.InitState != "started" || len(vm.Warnings) > 0 {
		t.Errorf("%+v", vm)
	}
	h.fails(1, []string{"it has none (looked for /sbin/init,", "--init agent"}, "vm", "create", "--name", "none", "--init", "image", "--vcpu", "1", "--memory", "512M")
}

package tests

import (
	"strings"
	"testing"
)

func TestGuestIsAMachineADeveloperExpects(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("dev-box")
	for what, line := range map[string]string{
		"tools":        "for t in bash apt-get git curl ip ps less vi sudo ssh rsync make python3 update-ca-certificates; do command -v $t >/dev/null || echo missing $t; done",
		"host name":    "[ $(hostname) = dev-box ] || hostname",
		"hosts":        "grep -q 'dev-box' /etc/hosts && getent hosts localhost >/dev/null || cat /etc/hosts",
		"resolver":     "grep -q '^nameserver ' /etc/resolv.conf || cat /etc/resolv.conf",
		"locale":       "[ \"$(locale charmap 2>&1)\" = UTF-8 ] || locale",
		"root device":  "findmnt -no FSTYPE / | grep -qx overlay || findmnt /",
		"home":         "findmnt -no FSTYPE /root | grep -qx ext4 || findmnt /root",
		"home seeded":  "[ -f /root/.bashrc ] && [ \"$(stat -c %a:%u:%g /root)\" = 700:0:0 ] || ls -la /root",
		"api mounts":   "for m in proc:/proc sysfs:/sys devtmpfs:/dev devpts:/dev/pts tmpfs:/run cgroup2:/sys/fs/cgroup; do [ \"$(findmnt -no FSTYPE ${m#*:})\" = ${m%:*} ] || echo $m; done",
		"modules":      "modprobe -n loop || ls /lib/modules",
		"one device":   "[ $(stat -c %d / /etc/hosts /bin/bash /etc/passwd | sort -u | wc -l) = 1 ] && [ $(du -xs /usr | cut -f1) -gt 100000 ] || stat -c '%d %n' / /etc/hosts /bin/bash",
		"later ones":   "for i in $(seq 100); do grep -q virtio_balloon /proc/modules && exit; sleep 0.1; done; cat /proc/modules",
		"no IPv6 made": "[ -z \"$(ip -6 addr show dev eth0)\" ] && ip -6 addr show dev lo | grep -q ::1 || ip -6 addr",
		"zombies":      "(sh -c 'sleep 0.1 & exec true'); sleep 0.5; ps -eo stat= | grep -c '^Z' | grep -qx 0 || ps ax",
		"sticky tmp":   "[ $(stat -c %a /tmp) = 1777 ] || stat /tmp",
		"clock":        "[ $(date +%Y) -ge 2026 ] || date",
		"entropy":      "head -c 16 /dev/random >/dev/null || echo none",
		"owners kept":  "[ \"$(stat -c %a:%U /usr/bin/sudo)\" = 4755:root ] || ls -l /usr/bin/sudo",
		"hard links":   `[ /usr/bin/perl -ef "$(ls /usr/bin/perl5.* | grep -v x86)" ] || ls -li /usr/bin/perl*`,
		"capabilities": "getcap /usr/bin/ping 2>/dev/null | grep -q cap_net_raw || [ ! -e /usr/bin/ping ] || getcap /usr/bin/ping",
	} {
		if got := h.sh("dev-box", line); got != "" {
			t.Errorf("%s: %s", what, got)
		}
	}
}

func TestCtrlAltDelPowersOff(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("cad")
	h.sh("cad", "echo kept > /root/a")
	h.banger("vm", "exec", "-d", "cad", "--", "sh", "-c", "kill -INT 1") // what the kernel sends init at ctrl-alt-del
	h.ok("vm", "wait", "cad", "--for", "stopped", "--timeout", "300s")
	h.ok("vm", "start", "cad")
	if got := h.sh("cad", "cat /root/a"); got != "kept" {
		t.Errorf("%q", got)
	}
}

func TestATerminal(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("tty")
	r := h.bangerIn(strings.NewReader("tty; exit 5\n"), "vm", "exec", "-t", "tty", "--", "bash", "-i")
	if r.code != 5 || !strings.Contains(r.stdout, "/dev/pts/") {
		t.Errorf("%v", r)
	}
	// The controlling one: bash makes it that by itself, sh does not.
	if r := h.ok("vm", "exec", "-t", "tty", "--", "sh", "-c", "stty size; echo controlling > /dev/tty"); r.stdout != "24 80\r\ncontrolling\r\n" {
		t.Errorf("%v", r)
	}
}

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

// witness is a service of OpenRC that says in which order it is stopped.
const witness = `#!/sbin/openrc-run
description="says in which order it is stopped"
start() { echo started >> /root/started; }
stop() { echo "in order" >> /root/stopped; }
`

// alpineInittab is Alpine's: busybox is process 1, OpenRC the services.
const alpineInittab = `::sysinit:/sbin/openrc sysinit
::sysinit:/sbin/openrc boot
::wait:/sbin/openrc default
::ctrlaltdel:/bin/busybox reboot
::shutdown:/sbin/openrc shutdown
`

// OpenRC's own init, and OpenRC under busybox's as Alpine has it.
func TestOpenRCAsTheImagesInit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	archive := tree(t, "openrc,busybox-static")
	services := []file{
		{name: "etc/init.d/witness", data: witness, mode: 0o755},
		{name: "etc/runlevels/default/witness", link: "/etc/init.d/witness"},
	}
	for name, c := range map[string]struct {
		init string
		more []file
	}{
		"openrc": {"openrc-init", nil},
		"alpine": {"../bin/busybox", []file{{name: "etc/inittab", data: alpineInittab, mode: 0o644}}},
	} {
		h.image(name, api.ImageConfig{}, with(t, archive, append(append([]file{{name: "usr/sbin/init", link: c.init}}, services...), c.more...)...))
		r := h.ok("vm", "run", "--name", name, "--init", "image", "--image", name, "--vcpu", "1", "--memory", "512M", "--",
			"sh", "-c", "until [ -e /root/started ]; do sleep 0.1; done; cat /proc/1/comm")
		if r.stdout != "init\n" {
			t.Errorf("%s: %v", name, r)
		}
		if vm := h.show(name); vm.Status != api.StatusStopped || vm.Error != nil || vm.Init != "image" {
			t.Errorf("%s after the run: %+v", name, vm)
		}
		h.ok("vm", "start", name)
		if got := h.sh(name, "sort -u /root/stopped"); got != "in order" {
			t.Errorf("%s was stopped: %q", name, got)
		}
		if got := h.sh(name, "until [ $(wc -l < /root/started) -ge 2 ]; do sleep 0.1; done; rc-service witness status 2>&1 | grep -o 'status: .*'"); got != "status: started" {
			t.Errorf("%s: its service: %q", name, got)
		}
		if vm := h.show(name); vm.InitState != "started" || len(vm.Warnings) > 0 {
			t.Errorf("%s: %+v", name, vm)
		}
		h.ok("vm", "delete", name, "--force")
	}
}

// busybox alone: its init, its shell, nothing else.
func TestBusyboxAsTheImagesInit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	busybox, err := os.ReadFile(filepath.Join(debian(t, "busybox-static"), "bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	h.image("bb", api.ImageConfig{Cmd: []string{"/sbin/init"}}, files(
		file{name: "bin/busybox", data: string(busybox)},
		file{name: "bin/sh", link: "busybox"},
		file{name: "sbin/init", link: "../bin/busybox"},
		file{name: "etc/inittab", data: "::sysinit:/bin/sh -c 'echo up > /root/up'\n::shutdown:/bin/sh -c 'echo in order > /root/stopped'\n", mode: 0o644},
	))
	r := h.ok("vm", "run", "--name", "bb", "--image", "bb", "--vcpu", "1", "--memory", "512M", "--", "busybox", "sh", "-c", "until [ -e /root/up ]; do busybox sleep 0.1; done; busybox cat /proc/1/comm")
	if r.stdout != "init\n" {
		t.Errorf("%v", r)
	}
	h.ok("vm", "start", "bb")
	if r := h.ok("vm", "exec", "bb", "--", "busybox", "cat", "/root/stopped"); r.stdout != "in order\n" {
		t.Errorf("%v", r)
	}
	if vm := h.show("bb"); vm.Init != "image" || vm.InitReason != "the image runs /sbin/init" || len(vm.Warnings) > 0 {
		t.Errorf("%+v", vm)
	}
}

// A program of musl with musl's loader, in an image that has no glibc.
func TestAMuslImage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dev, lib := filepath.Join(debian(t, "musl-dev"), "usr"), filepath.Join(debian(t, "musl"), "lib")
	dir := t.TempDir()
	source := filepath.Join(dir, "hello.c")
	if err := os.WriteFile(source, []byte(`#include <stdio.h>
#include <pwd.h>
#include <netdb.h>
int main(void) {
	struct passwd *p = getpwuid(0);
	struct addrinfo *a;
	printf("musl as %s, %s\n", p ? p->pw_name : "nobody", getaddrinfo("localhost", 0, 0, &a) ? "no localhost" : "localhost");
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	part := func(name string) string { return filepath.Join(dev, "lib/x86_64-linux-musl", name) }
	libc, err := os.ReadFile(filepath.Join(lib, "x86_64-linux-musl/libc.so"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "libc.so"), libc, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "hello")
	out, err := exec.Command("gcc", "-no-pie", "-nostdinc", "-isystem", filepath.Join(dev, "include/x86_64-linux-musl"), "-nostdlib", "-fno-stack-protector",
		"-Wl,-dynamic-linker,/lib/ld-musl-x86_64.so.1", "-o", program, part("crt1.o"), part("crti.o"), source, "-L", dir, "-lc", part("crtn.o")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	hello, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	h.image("musl", api.ImageConfig{}, files(
		file{name: "bin/hello", data: string(hello)},
		file{name: "lib/ld-musl-x86_64.so.1", data: string(libc)},
		file{name: "etc/passwd", data: "root:x:0:0:root:/root:/bin/ash\n", mode: 0o644},
	))
	if r := h.ok(oneVM("musl", "--", "hello")...); strings.TrimSpace(r.stdout) != "musl as root, localhost" {
		t.Errorf("%v", r)
	}
}

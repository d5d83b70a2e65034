package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/seed"
)

// oneVM are the flags of a small machine.
func oneVM(image string, more ...string) []string {
	return append([]string{"vm", "run", "--rm", "--vcpu", "1", "--memory", "512M", "--image", image}, more...)
}

func TestAnImageOfOneStaticProgram(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// No shell, no /etc, no /root, no /dev, no folder at all; the config of a
	// container. /app is a folder of nobody's yet.
	h.image("scratch", api.ImageConfig{
		Env: []string{"APP=1", "HOME=/nowhere", "TERM=vt52", "KEEP=image"}, Workdir: "/srv/app", User: "65532:7",
		Entrypoint: []string{"/probe", "--serve"}, Cmd: []string{"all"},
	}, files(file{name: "probe", data: probe(t)}))
	s := h.see(h.ok("vm", "run", "--name", "s", "--vcpu", "1", "--memory", "512M", "--image", "scratch", "--entrypoint", "image", "-e", "KEEP=vm", "-e", "MORE=vm", "--", "x"))
	if d := cmp.Diff([]string{"/probe", "--serve", "x"}, s.Argv); d != "" {
		t.Errorf("the image's own entrypoint: %s", d)
	}
	s = h.see(h.ok("vm", "exec", "--start", "s", "-e", "MORE=exec", "--", "/probe"))
	if s.UID != 65532 || s.GID != 7 || s.Dir != "/srv/app" {
		t.Errorf("user and folder: %+v", s)
	}
	if missing := s.has("APP=1", "HOME=/", "TERM=dumb", "IS_SANDBOX=1", "KEEP=vm", "MORE=exec", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); missing != nil {
		t.Errorf("no %q in %q", missing, s.Env)
	}
	for path, want := range map[string]string{"/": "drwxr-xr-x", "/tmp": "dtrwxrwxrwx", "/root": "drwx------", "/etc": "drwxr-xr-x", "/dev/null": "Dcrw-rw-rw-"} {
		if got := s.Modes[path]; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if s.Files["/etc/hostname"] != "s\n" || !strings.Contains(s.Files["/etc/resolv.conf"], "nameserver ") || len(s.Files["/etc/machine-id"]) != 33 {
		t.Errorf("names: %q", s.Files)
	}
	if !strings.Contains(s.Files["/proc/mounts"], " /root ext4 ") {
		t.Errorf("mounts: %s", s.Files["/proc/mounts"])
	}
	h.fails(127, []string{"the image has none", "give a command"}, "vm", "shell", "s")
	h.ok("vm", "delete", "--force", "s")

	s = h.see(h.ok(oneVM("scratch", "--entrypoint", "/probe", "-u", "0", "-w", "/deep/er", "--", "a", "b")...))
	if d := cmp.Diff([]string{"/probe", "a", "b"}, s.Argv); d != "" || s.UID != 0 || s.Dir != "/deep/er" {
		t.Errorf("another entrypoint: %s %+v", d, s)
	}
	if missing := s.has("HOME=/root", "USER=root"); missing != nil {
		t.Errorf("no %q in %q", missing, s.Env)
	}
	h.fails(125, []string{`"debian-bookworm" has none`, "hint:"}, oneVM("debian-bookworm", "--entrypoint", "image", "--", "true")...)
}

func TestABusyboxImageWithOddFolders(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	busybox, err := os.ReadFile(filepath.Join(debian(t, "busybox-static"), "bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	h.image("odd", api.ImageConfig{}, files(
		file{name: "./", mode: 0o700},
		file{name: "usr/"}, file{name: "usr/bin/"},
		file{name: "usr/bin/busybox", data: string(busybox)},
		file{name: "usr/bin/sh", link: "busybox"},
		file{name: "bin", link: "usr/bin"},
		file{name: "lib", link: "usr/lib"}, // leads nowhere
		file{name: "root", link: "var/roothome"},
		file{name: "var/roothome/.profile", data: "HELLO=from-the-image\nexport HELLO\n", mode: 0o644},
		file{name: "var/run", link: "/run"},
		file{name: "tmp/", mode: 0o755},
		file{name: "etc/resolv.conf", link: "/run/systemd/resolve/stub-resolv.conf"},
		file{name: "etc/hostname", link: "../run/no/such"},
		file{name: "etc/machine-id", data: "uninitialized\n", mode: 0o444},
		file{name: "etc/passwd", data: "root:x:0:0::/root:/bin/zsh\nweb:x:1000:1000::/var/www:/sbin/nologin\n", mode: 0o600},
		file{name: "etc/", mode: 0o555},
	))
	r := h.bangerIn(strings.NewReader("busybox id -u; echo $0 $HELLO; busybox cat /etc/hostname /etc/resolv.conf; busybox stat -c %a /tmp /; busybox ls -d /var/run/lock; exit 5\n"),
		oneVM("odd", "--name", "odd")...)
	for _, want := range []string{"0\n-sh from-the-image\n", "odd\n", "nameserver ", "\n1777\n755\n", "/var/run/lock"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q: %v", want, r)
		}
	}
	if r.code != 5 {
		t.Errorf("%v", r)
	}
	if r := h.ok(oneVM("odd", "-u", "web", "--", "busybox", "sh", "-c", "echo $(busybox id -u) $HOME $SHELL; busybox touch /tmp/x && echo written")...); r.stdout != "1000 /var/www /bin/sh\nwritten\n" {
		t.Errorf("%v", r)
	}
}

func TestAWorkSeedTheKeyAndAnotherImage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	home := t.TempDir()
	for path, data := range map[string]string{"root/.seeded": "from the seed\n", "root/.ssh/authorized_keys": "ssh-rsa AAAA me@laptop\n"} {
		p := filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o664); err != nil {
			t.Fatal(err)
		}
	}
	static := probe(t)
	dir := h.image("seeded", api.ImageConfig{}, files(file{name: "probe", data: static}, file{name: "root/.image", data: "x"}))
	if _, err := seed.Write(t.Context(), dir.WorkSeed(), home, nil); err != nil {
		t.Fatal(err)
	}
	h.ok("vm", "create", "--name", "w", "--vcpu", "1", "--memory", "512M", "--image", "seeded")
	if s := h.see(h.ok("vm", "exec", "w", "--", "/probe")); s.Modes["/root/.ssh/authorized_keys"] != "-rw-r--r--" {
		t.Errorf("%+v", s.Modes)
	}
	var before api.VM
	h.json(&before, "vm", "set", "w", "--image", "debian-bookworm", "--json")
	if d := cmp.Diff([]string{"image"}, before.Pending); d != "" || before.Image.Name != "debian-bookworm" || !before.Changed {
		t.Errorf("%s %+v", d, before)
	}
	h.fails(3, []string{"hint:"}, "vm", "set", "w", "--image", "no-such-image")
	h.ok("vm", "stop", "w")
	// Another key, too: both take effect at the next start.
	for _, name := range []string{"id_ed25519", "id_ed25519.pub"} {
		if err := os.Remove(filepath.Join(h.root, "state/ssh", name)); err != nil {
			t.Fatal(err)
		}
	}
	h.ok("vm", "start", "w")
	public, err := os.ReadFile(filepath.Join(h.root, "state/ssh/id_ed25519.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Join(strings.Fields(string(public))[:2], " ")
	if got := h.sh("w", ". /etc/os-release; echo $ID; cat /root/.seeded; ls /root/.image /probe; cat /root/.ssh/authorized_keys; stat -c %a:%u /root/.ssh"); got !=
		"debian\nfrom the seed\nssh-rsa AAAA me@laptop\n"+key+" banger-managed\n755:0" {
		t.Errorf("got %q", got)
	}
	if got := h.show("w"); len(got.Pending) > 0 || got.Image.Name != "debian-bookworm" {
		t.Errorf("%+v", got)
	}
	if again := h.ok("vm", "set", "w", "--image", "debian-bookworm", "--json"); !strings.Contains(again.stdout, `"changed":false`) && !strings.Contains(again.stdout, `"changed": false`) {
		t.Errorf("%v", again)
	}
}

package guest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/guestapi"
)

func TestFindInit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		have, wanted, want []string
		err                string
	}{
		"the image's place":  {have: []string{"/sbin/init", "/lib/systemd/systemd"}, want: []string{"/sbin/init"}},
		"systemd by its own": {have: []string{"/usr/lib/systemd/systemd"}, want: []string{"/usr/lib/systemd/systemd"}},
		"with arguments":     {have: []string{"/lib/systemd/systemd"}, wanted: []string{"/lib/systemd/systemd", "--show-status=no"}, want: []string{"/lib/systemd/systemd", "--show-status=no"}},
		"none":               {err: "it has none (looked for /sbin/init,"},
		"the wanted is gone": {have: []string{"/sbin/init"}, wanted: []string{"/bin/systemd"}, err: "/bin/systemd: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for _, p := range c.have {
				if err := os.MkdirAll(filepath.Dir(root+p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(root+p, nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			got, err := findInit(root, c.wanted)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "--init agent") {
					t.Errorf("got %v", err)
				}
				return
			}
			if d := cmp.Diff(c.want, got); d != "" || err != nil {
				t.Errorf("%v %s", err, d)
			}
		})
	}
}

func TestSettleNetwork(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	n := guestapi.Network{Mode: "user", Address: "192.168.127.2/24", Gateway: "192.168.127.1", DNS: []string{"192.168.127.1", "9.9.9.9"}, MTU: 4000}
	for range 2 { // a reboot by kexec finds it there
		if err := settleNetwork(run, n); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(run, "systemd/network/00-banger.network"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Name=eth0\n", "MTUBytes=4000\n", "Address=192.168.127.2/24\n", "Gateway=192.168.127.1\n", "DNS=192.168.127.1\nDNS=9.9.9.9\n", "DHCP=no\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in %s", want, b)
		}
	}
	if target, err := os.Readlink(filepath.Join(run, "udev/rules.d/80-net-setup-link.rules")); err != nil || target != "/dev/null" {
		t.Errorf("%q, %v", target, err)
	}
	for file, want := range map[string]string{
		"NetworkManager/conf.d/00-banger.conf": "unmanaged-devices=interface-name:eth0\n",
		"network/ifstate":                      "lo=lo\neth0=eth0\n", // ifupdown of old, and of now
		"network/ifstate.lo":                   "lo\n", "network/ifstate.eth0": "eth0\n",
	} {
		if b, err := os.ReadFile(filepath.Join(run, file)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("no %q in %s: %q, %v", want, file, b, err)
		}
	}
	none := t.TempDir()
	if err := settleNetwork(none, guestapi.Network{Mode: "none"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(none, "systemd")); err == nil {
		t.Error("a machine with no network got one")
	}
}

func TestSettleDisks(t *testing.T) {
	t.Parallel()
	const old = "# a comment\nUUID=1 / ext4 defaults 0 1\n/dev/sda15\t/boot/efi vfat umask=0077 0 1\ntmpfs /tmp tmpfs size=1M 0 0\nnas:/x /mnt nfs defaults 0 0\noverlay / overlay lowerdir=/x 0 0\n\nshort line"
	const want = "# a comment\n" + noDisk + "UUID=1 / ext4 defaults 0 1\n" + noDisk + "/dev/sda15\t/boot/efi vfat umask=0077 0 1\ntmpfs /tmp tmpfs size=1M 0 0\nnas:/x /mnt nfs defaults 0 0\n" + noDisk + "overlay / overlay lowerdir=/x 0 0\n\nshort line"
	for _, fresh := range []bool{true, false} {
		etc := t.TempDir()
		path := filepath.Join(etc, "fstab")
		if err := os.WriteFile(path, []byte(old), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := settleDisks(etc, fresh); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		expect := old
		if fresh {
			expect = want
		}
		if d := cmp.Diff(expect, string(got)); d != "" || err != nil {
			t.Errorf("fresh %v: %v %s", fresh, err, d)
		}
	}
	etc := t.TempDir()
	if err := settleDisks(etc, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(etc, "fstab")); err == nil {
		t.Error("an fstab was made")
	}
	if target, err := os.Readlink(filepath.Join(etc, "mtab")); err != nil || target != "../proc/self/mounts" {
		t.Errorf("mtab is %q, %v", target, err)
	}
}

func FuzzWithoutDisks(f *testing.F) {
	f.Add([]byte("UUID=1 / ext4\n\x00\r\n/dev/x y z"))
	f.Fuzz(func(t *testing.T, old []byte) {
		once := withoutDisks(old)
		if again := withoutDisks(once); string(again) != string(once) {
			t.Fatalf("%q became %q", once, again)
		}
		if back := strings.ReplaceAll(string(once), noDisk, ""); !strings.Contains(string(old), noDisk) && back != string(old) {
			t.Fatalf("%q lost something: %q", old, once)
		}
	})
}

func TestReadyNote(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	send := func(texts ...string) {
		conn, err := net.Dial("unixgram", path)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for _, text := range texts {
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Error(err)
			}
		}
	}
	notes := listenNotes(path)
	if notes == nil {
		t.Fatal("no socket")
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may write to it: %v, %v", fi.Mode(), err)
	}
	send("STATUS=Starting up\n", "STATUS=NOT READY=1\nX=1", "READY=1\nSTATUS=Startup finished in 2s.")
	if !readyNote(notes, time.Now().Add(time.Minute)) {
		t.Error("it was not heard")
	}
	notes = listenNotes(path)
	send("STATUS=Starting up\n")
	if readyNote(notes, time.Now().Add(50*time.Millisecond)) || readyNote(nil, time.Now()) {
		t.Error("something was heard that was not said")
	}
}

func TestRootIsReadOnly(t *testing.T) {
	t.Parallel()
	const rest = "24 30 0:22 / /proc rw,nosuid shared:5 - proc proc rw\n26 30 0:5 / /ro ro - tmpfs x ro\n"
	for name, c := range map[string]struct {
		line string
		want bool
	}{
		"writable":          {"30 1 0:27 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/lower,upperdir=/ro", false},
		"by its mount":      {"30 1 0:27 / / ro,relatime - overlay overlay rw,lowerdir=/lower", true},
		"by its superblock": {"30 1 0:27 / / rw,relatime - overlay overlay ro,lowerdir=/lower", true},
		"none":              {"", false},
		"cut short":         {"30 1 0:27 / /", false},
	} {
		if got := rootIsReadOnly([]byte(rest + c.line + "\n")); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The layout is that of initreq.h: magic, command, runlevel, sleep time, data.
func TestSysVRequest(t *testing.T) {
	t.Parallel()
	b := sysvRequest('0')
	if d := cmp.Diff([]byte{0x69, 0x19, 0x09, 0x03, 1, 0, 0, 0, '0', 0, 0, 0, 0, 0, 0, 0}, b[:16]); d != "" || len(b) != 384 {
		t.Errorf("%d bytes: %s", len(b), d)
	}
	if err := askSysV(filepath.Join(t.TempDir(), "none"), '0'); err == nil {
		t.Error("nobody was asked, and no error")
	}
}

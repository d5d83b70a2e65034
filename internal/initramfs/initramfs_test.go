package initramfs

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestbin"
	"github.com/bangervm/banger/internal/layout"
)

// unpack lists and unpacks an archive with the real cpio.
func unpack(t *testing.T, b []byte) (dir, list string) {
	t.Helper()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("no cpio")
	}
	cmd := exec.CommandContext(t.Context(), "cpio", "-tv", "--numeric-uid-gid")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	cmd = exec.CommandContext(t.Context(), "cpio", "-id", "--no-absolute-filenames", "--no-preserve-owner", "init", "banger", "banger/*", "l")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir, string(out)
}

func TestParts(t *testing.T) {
	t.Parallel()
	var guest, modules, config bytes.Buffer
	if err := WriteGuest(&guest, []byte("the binary")); err != nil {
		t.Fatal(err)
	}
	if err := WriteModules(&modules, []Module{
		{"virtio.ko", guestapi.LoadAlways, 5, strings.NewReader("first")}, {"vsock.ko", "load.vsock", 5, strings.NewReader("third")},
		{"virtio_blk.ko", guestapi.LoadAlways, 6, strings.NewReader("second")},
	}); err != nil {
		t.Fatal(err)
	}
	cfg := guestapi.Config{Protocol: guestapi.Protocol, VMID: "1", Hostname: "web", Token: "secret"}
	if err := WriteConfig(&config, cfg); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"guest": guest.Bytes(), "modules": modules.Bytes(), "config": config.Bytes()} {
		if len(b)%alignment != 0 {
			t.Errorf("%s: %d bytes, no multiple of %d: what follows would be lost", name, len(b), alignment)
		}
	}

	dir, list := unpack(t, guest.Bytes())
	for _, want := range []string{"crw-------", "dev/console", "-rwxr-xr-x", "5,   1"} {
		if !strings.Contains(list, want) {
			t.Errorf("guest part lacks %q:\n%s", want, list)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "init")); err != nil || string(b) != "the binary" {
		t.Errorf("init: %q, %v", b, err)
	}

	dir, _ = unpack(t, modules.Bytes())
	for name, want := range map[string]string{"load": "virtio.ko\nvirtio_blk.ko\n", "load.vsock": "vsock.ko\n", "virtio.ko": "first", "virtio_blk.ko": "second"} {
		if b, err := os.ReadFile(filepath.Join(dir, guestapi.ModulesPath, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}

	dir, list = unpack(t, config.Bytes())
	b, err := os.ReadFile(filepath.Join(dir, guestapi.ConfigPath))
	if err != nil {
		t.Fatal(err)
	}
	var got guestapi.Config
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(cfg, got); d != "" {
		t.Error(d)
	}
	if !strings.Contains(list, "-rw-------") {
		t.Errorf("the configuration holds secrets and is open:\n%s", list)
	}
}

func TestCPIOMembers(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	c := NewCPIO(&b)
	c.Symlink("l", "target")
	c.File("/a/b/../c", 0o600, 3, strings.NewReader("abc"))
	c.Dir("a", 0o700) // there already, made for the file
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b.Bytes(), []byte("\x00a\x00")) + bytes.Count(b.Bytes(), []byte("a/c\x00")); n < 1 {
		t.Errorf("no member a/c")
	}
	dir, list := unpack(t, b.Bytes())
	if target, err := os.Readlink(filepath.Join(dir, "l")); err != nil || target != "target" {
		t.Errorf("link: %q, %v\n%s", target, err, list)
	}

	for name, write := range map[string]func(*CPIO){
		"file cut short": func(c *CPIO) { c.File("x", 0o600, 5, strings.NewReader("abc")) },
		"file too large": func(c *CPIO) { c.File("x", 0o600, 5<<30, strings.NewReader("")) },
	} {
		c := NewCPIO(&bytes.Buffer{})
		write(c)
		if c.Close() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := layout.Layout{Cache: filepath.Join(dir, "cache")}
	boot := filepath.Join(dir, "boot.cpio")
	if err := os.WriteFile(boot, bytes.Repeat([]byte("b"), 512), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(dir, "initrd.img")
	if err := os.WriteFile(dst, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	bin, err := guestbin.Open()
	if err != nil {
		if werr := Write(l, dst, boot, guestapi.Config{}); werr == nil {
			t.Error("no error without a guest binary")
		}
		t.Skip("the guest binary was not built in: run make build")
	}
	for range 2 {
		if err := Write(l, dst, boot, guestapi.Config{Hostname: "web"}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(dst)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := os.ReadFile(l.GuestCPIO(bin.Build))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, guest) || !bytes.HasPrefix(b[len(guest):], []byte("bbbb")) || !bytes.Contains(b, []byte(`"hostname":"web"`)) {
		t.Error("the parts are not there, in order")
	}
	if fi, err := os.Stat(dst); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 3 {
		t.Errorf("files: %v", left)
	}
	if err := Write(l, filepath.Join(dir, "none", "initrd.img"), boot, guestapi.Config{}); err == nil {
		t.Error("no error for a folder that is not there")
	}
	if err := Write(l, dst, filepath.Join(dir, "missing.cpio"), guestapi.Config{}); err == nil {
		t.Error("no error for missing boot modules")
	}
	if again, err := os.ReadFile(dst); err != nil || !bytes.Equal(again, b) {
		t.Errorf("a failed write changed the old one: %v", err)
	}
}

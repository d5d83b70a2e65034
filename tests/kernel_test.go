package tests

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// kernelPackage downloads the newest Debian kernel of a flavour (amd64,
// cloud-amd64) as its user would, and gives the file and the release.
func kernelPackage(t *testing.T, flavour string) (deb, release string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", "linux-image-"+flavour).Output()
	if err != nil {
		t.Fatalf("apt-cache: %v", err)
	}
	name := regexp.MustCompile(`linux-image-[0-9][^ \n]*`).FindString(string(out))
	dir := t.TempDir()
	cmd := exec.CommandContext(ctx, "apt-get", "download", name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apt-get download %s: %v\n%s", name, err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "linux-image-*.deb"))
	if err != nil || len(files) != 1 {
		t.Fatalf("downloaded: %v, %v", files, err)
	}
	return files[0], strings.TrimPrefix(name, "linux-image-")
}

// A kernel of the user's own becomes a machine: from the package, which has even
// the disks' file system as a module; again; and what else wants its name is told.
func TestAnImportedPackageBoots(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if r := h.ok("kernel", "catalog"); !strings.Contains(r.stdout, "debian-bookworm-cloud") {
		t.Errorf("%v", r)
	}
	deb, release := kernelPackage(t, "amd64")
	cmd := h.command(t.Context(), "kernel", "import", filepath.Base(deb), "--name", "mine", "--json")
	cmd.Dir = filepath.Dir(deb) // as a shell's user would call it
	out, err := cmd.Output()
	var k api.Kernel
	if err != nil || json.Unmarshal(out, &k) != nil || k.Name != "mine" || k.Version != release || k.Arch != "amd64" || !k.Changed ||
		k.Source["kind"] != "deb" || k.Source["path"] != deb || k.Source["package"] != "linux-image-"+release {
		t.Fatalf("%v: %s", err, out)
	}
	if r := h.ok("vm", "run", "--rm", "--kernel", "mine", "--memory", "512M", "--", "sh", "-c", "uname -r; modprobe dummy && ls /sys/module/dummy >/dev/null && echo module"); r.stdout != release+"\nmodule\n" {
		t.Errorf("%v", r)
	}
	h.json(&k, "kernel", "import", deb, "--name", "mine", "--json")
	if k.Changed {
		t.Errorf("the same again: %+v", k)
	}
	h.fails(4, []string{"another", "--replace"}, "kernel", "import", deb, "--name", "debian-bookworm-cloud")
	var list []api.Kernel
	h.json(&list, "kernel", "list", "--json")
	if len(list) != 2 || list[1].Name != "mine" || len(list[1].UsedBy) != 0 {
		t.Errorf("%+v", list)
	}
	h.ok("kernel", "delete", "--yes", "mine")
	h.fails(125, []string{"mine"}, "vm", "run", "--rm", "--kernel", "mine", "--", "true")
}

// The same kernel as a folder, as a bare bzImage with its modules, and as an
// uncompressed vmlinux.
func TestImportedKernelFilesBoot(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	deb, release := kernelPackage(t, "cloud-amd64")
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v %s", err, out)
	}
	bzImage, modules := filepath.Join(dir, "boot", "vmlinuz-"+release), filepath.Join(dir, "lib", "modules", release)
	h.fails(8, []string{"lacks virtio_blk", "hint: banger kernel import " + bzImage + " --modules /lib/modules/" + release}, "kernel", "import", bzImage, "--name", "bare")
	h.ok("kernel", "import", dir, "--name", "folder")
	var folder, bare, plain api.Kernel
	h.json(&folder, "kernel", "show", "folder", "--json")
	h.json(&bare, "kernel", "import", bzImage, "--modules", modules, "--name", "bare", "--json")
	// The vmlinux in a bzImage is all there is of it.
	found, err := filepath.Glob(filepath.Join(h.root, "state", "kernels", "*", "vmlinux"))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	vmlinux := ""
	for _, f := range found {
		if m, err := os.ReadFile(filepath.Join(filepath.Dir(f), "manifest.json")); err == nil && strings.Contains(string(m), folder.Digest) {
			vmlinux = f
		}
	}
	h.json(&plain, "kernel", "import", vmlinux, "--modules", modules, "--name", "plain", "--json")
	if folder.Digest != bare.Digest || plain.Version != release || plain.Source["kind"] != "vmlinux" || bare.Source["kind"] != "bzimage" || folder.Source["kind"] != "folder" {
		t.Errorf("%+v\n%+v\n%+v", folder, bare, plain)
	}
	for _, name := range []string{"folder", "bare", "plain"} {
		if r := h.ok("vm", "run", "--rm", "--kernel", name, "--memory", "512M", "--", "uname", "-r"); r.stdout != release+"\n" {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func TestKernelDeleteIsRefusedWhileUsed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ok("vm", "create", "--name", "web", "--no-start", "--network", "none")
	h.fails(2, []string{"--yes", "hint: banger kernel delete --dry-run"}, "kernel", "delete", "debian-bookworm-cloud")
	h.fails(5, []string{"web"}, "kernel", "delete", "--yes", "debian-bookworm-cloud")
	h.fails(5, []string{"web"}, "kernel", "delete", "--dry-run", "debian-bookworm-cloud")
	h.fails(3, nil, "kernel", "delete", "--yes", "debian-bookworm") // a prefix is no name
	h.ok("kernel", "delete", "--force", "never-was")
	h.ok("vm", "start", "web")
	h.ok("vm", "delete", "--force", "web")
	// The image names it: it goes with --force only once nothing does.
	h.fails(5, []string{"image", "debian-bookworm"}, "kernel", "delete", "--force", "debian-bookworm-cloud")
	if r := h.banger("kernel", "list", "-q"); r.stdout != "debian-bookworm-cloud\n" {
		t.Errorf("%v", r)
	}
}

func TestKernelImportBadInput(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.fails(2, []string{"no name given", "--name"}, "kernel", "import", text)
	h.fails(2, []string{"1 to 63"}, "kernel", "import", text, "--name", "Mine!")
	h.fails(2, []string{"neither a Debian package nor a bzImage nor a vmlinux"}, "kernel", "import", text, "--name", "mine")
	h.fails(3, []string{"no such file"}, "kernel", "import", filepath.Join(dir, "none.deb"), "--name", "mine")
	h.fails(2, []string{"holds no kernel"}, "kernel", "import", dir, "--name", "mine")
	h.fails(2, []string{"standard input"}, "kernel", "import", "-", "--name", "mine")
	if left, err := os.ReadDir(filepath.Join(h.root, "state", "staging")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// The daemon is killed, and the import cancelled, at many moments: the kernel is
// whole and named, or there is nothing of it.
func TestDaemonKilledWhileImportingAKernel(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	deb, release := kernelPackage(t, "cloud-amd64")
	h.ok("vm", "list")
	for _, delay := range []time.Duration{20, 200, 1000, 3000} {
		var wg sync.WaitGroup
		var r result
		wg.Go(func() { r = h.banger("kernel", "import", deb, "--name", "half") })
		time.Sleep(delay * time.Millisecond) // the moment is what is varied
		if len(h.processes("daemon run")) == 1 {
			_ = syscall.Kill(h.one("daemon run"), syscall.SIGKILL)
		}
		wg.Wait()
		var list []api.Kernel
		h.json(&list, "kernel", "list", "--json")
		if done := r.code == 0; done != (len(list) == 2) {
			t.Errorf("killed after %v: %v, and %+v", delay, r, list)
		}
		h.banger("kernel", "delete", "--force", "half")
		if left, err := os.ReadDir(filepath.Join(h.root, "state", "staging")); err != nil || len(left) != 0 {
			t.Errorf("killed after %v, left: %v, %v", delay, left, err)
		}
		if kernels, err := os.ReadDir(filepath.Join(h.root, "state", "kernels")); err != nil || len(kernels) != 1 {
			t.Errorf("killed after %v, folders: %v, %v", delay, kernels, err)
		}
	}
	cmd := h.command(t.Context(), "kernel", "import", deb, "--name", "half")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.eventually("the import runs", patience, func() bool {
		return strings.Contains(h.ok("operation", "list").stdout, "kernel.import")
	})
	_ = cmd.Process.Signal(os.Interrupt)
	if code := exitCode(t, cmd.Wait()); code != 130 && code != 0 {
		t.Errorf("cancelled: %d", code)
	}
	h.banger("kernel", "delete", "--force", "half")
	var k api.Kernel
	h.json(&k, "kernel", "import", deb, "--name", "half", "--json")
	if k.Version != release || !k.Changed {
		t.Errorf("%+v", k)
	}
}

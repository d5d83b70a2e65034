package tests

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

// cat is all there is in the images of these tests beside what it shows: no shell,
// no libc.
const cat = `package main

import (
	"io"
	"os"
)

func main() {
	for _, path := range os.Args[1:] {
		f, err := os.Open(path)
		if err != nil {
			println(err.Error())
			os.Exit(1)
		}
		_, _ = io.Copy(os.Stdout, f)
	}
}
`

// catBinary builds it.
func catBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(cat), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "cat"), filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// app makes an image that says its version.
func app(t *testing.T, binary, version string) v1.Image {
	t.Helper()
	program := ocitest.File("bin/cat", binary)
	program.Header.Mode = 0o755
	return ocitest.Image(t, v1.Config{Env: []string{"PATH=/bin", "APP=1"}, Cmd: []string{"cat", "/etc/os-release"}},
		ocitest.Gzip(ocitest.Tar(t, ocitest.Dir("bin"), program)),
		ocitest.Gzip(ocitest.Tar(t, ocitest.Dir("etc"), ocitest.File("etc/os-release", "ID=app\nVERSION_ID="+version+"\n"))))
}

func (h *host) images() []api.Image {
	h.t.Helper()
	var images []api.Image
	h.json(&images, "image", "list", "--json")
	return images
}

// From a registry's reference to a machine with one command; an archive of the
// same image is the same image.
func TestImagesFromARegistryAndAnArchiveRun(t *testing.T) {
	t.Parallel()
	h, reg := newHost(t), ocitest.Start(t)
	binary := catBinary(t)
	digest := reg.Push(t, "team/app:v1", app(t, binary, "1"))
	reg.Push(t, "team/app:v2", app(t, binary, "2"))
	ref := reg.Ref("team/app:v1")

	r := h.ok("image", "pull", ref, "--progress", "plain")
	if strings.TrimSpace(r.stdout) != ref {
		t.Errorf("%v", r)
	}
	r = h.ok("vm", "run", "--rm", "--image", ref, "--", "cat", "/etc/os-release")
	if r.stdout != "ID=app\nVERSION_ID=1\n" {
		t.Errorf("%v", r)
	}
	// What is not here is pulled, unless that is forbidden.
	h.fails(125, []string{"not-found", "not here"}, "vm", "run", "--rm", "--pull", "never", "--image", reg.Ref("team/app:v2"), "--", "cat", "/etc/os-release")
	r = h.ok("vm", "run", "--rm", "--image", reg.Ref("team/app:v2"), "--", "cat", "/etc/os-release")
	if r.stdout != "ID=app\nVERSION_ID=2\n" {
		t.Errorf("%v", r)
	}
	h.fails(3, []string{"banger image pull docker.io/library/no-such-app:latest"}, "vm", "run", "--image", "no-such-app")

	archive := filepath.Join(t.TempDir(), "a.tar")
	if out, err := exec.Command("skopeo", "copy", "--src-tls-verify=false", "docker://"+ref, "docker-archive:"+archive).CombinedOutput(); err != nil {
		t.Fatalf("skopeo: %v %s", err, out)
	}
	h.ok("image", "import", archive, "--name", "app")
	var shown, pulled api.Image
	h.json(&shown, "image", "show", "app", "--json")
	h.json(&pulled, "image", "show", ref, "--json")
	if shown.Name != "app" || shown.Kind != "oci" || !slices.Equal(shown.Config.Env, []string{"PATH=/bin", "APP=1"}) || shown.ID != pulled.ID || pulled.ReferenceDigest != digest {
		t.Errorf("%+v\n%+v", shown, pulled)
	}
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if r := h.bangerIn(f, "image", "import", "-", "--name", "piped"); r.code != 0 || strings.TrimSpace(r.stdout) != "piped" {
		t.Errorf("%v", r)
	}

	// A machine keeps its image from being deleted, and says so.
	h.ok("vm", "create", "--no-start", "--name", "user", "--image", "app")
	h.fails(5, []string{"user"}, "image", "delete", "--yes", "app")
	h.fails(2, []string{"--yes"}, "image", "delete", ref)
	h.ok("vm", "delete", "--yes", "user")
	for _, name := range []string{"app", "piped", ref, reg.Ref("team/app:v2")} {
		h.ok("image", "delete", "--yes", name)
	}
	h.fails(3, []string{"cannot find image"}, "image", "delete", "--yes", "app")
	h.ok("image", "delete", "--force", "app")
	var pruned api.PrunedImages
	h.json(&pruned, "image", "prune", "--yes", "--json")
	if pruned.Blobs == 0 || pruned.FreedBytes == 0 {
		t.Errorf("%+v", pruned)
	}
}

// Two pulls of different content to one name, at once: one 0, one 4.
func TestTwoPullsToOneNameAtOnce(t *testing.T) {
	t.Parallel()
	h, reg := newHost(t), ocitest.Start(t)
	for _, v := range []string{"v1", "v2"} {
		reg.Push(t, "team/app:"+v, app(t, "no program", v))
	}
	h.ok("image", "list") // the daemon is there
	codes := make([]int, 2)
	var g sync.WaitGroup
	for n, v := range []string{"v1", "v2"} {
		g.Go(func() { codes[n] = h.banger("image", "pull", reg.Ref("team/app:"+v), "--name", "same").code })
	}
	g.Wait()
	slices.Sort(codes)
	if !slices.Equal(codes, []int{0, 4}) {
		t.Errorf("exit codes %v", codes)
	}
	// Again, the same content, at once: both succeed, one changed something.
	changed := make([]bool, 2)
	for n := range changed {
		g.Go(func() {
			var i api.Image
			r := h.banger("image", "pull", reg.Ref("team/app:v1"), "--name", "joined", "--json")
			if err := json.Unmarshal([]byte(r.stdout), &i); err != nil || r.code != 0 {
				t.Errorf("%v", r)
			}
			changed[n] = i.Changed
		})
	}
	g.Wait()
	if changed[0] == changed[1] {
		t.Errorf("changed %v", changed)
	}
}

// A daemon that is killed in a pull leaves nothing half-made to the next, and the
// next pull works.
func TestDaemonKilledInAPull(t *testing.T) {
	t.Parallel()
	h, reg := newHost(t), ocitest.Start(t)
	binary := ocitest.Random(1, 1<<20)
	reg.Push(t, "team/app:v1", app(t, binary, "1"))
	reg.Push(t, "team/other:v1", app(t, ocitest.Random(2, 1000), "1"))
	reached := make(chan struct{}, 100)
	proxy := ocitest.StartProxy(t, reg, func(r *http.Request) ocitest.Fault {
		if !ocitest.IsBlob(r) {
			return ocitest.Fault{}
		}
		reached <- struct{}{}
		return ocitest.Fault{Stall: 100_000}
	})
	before := h.images()
	op := strings.TrimSpace(h.ok("image", "pull", proxy.Ref("team/app:v1"), "--no-wait").stdout)
	<-reached
	<-reached
	// A stalled pull holds up neither other pulls nor machines.
	h.ok("image", "pull", reg.Ref("team/other:v1"), "--name", "direct")
	h.ok("vm", "create", "--no-start", "--name", "meanwhile")
	h.ok("image", "delete", "--yes", "direct")
	if err := syscall.Kill(h.daemonPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually("the pull has ended", patience, func() bool {
		var o api.Operation
		h.json(&o, "operation", "show", op, "--json")
		return o.Status == api.OperationInterrupted
	})
	entries, err := os.ReadDir(h.root + "/state/staging")
	if err != nil || len(entries) != 0 {
		t.Errorf("staging: %v %v", entries, err)
	}
	if after := h.images(); len(after) != len(before) {
		t.Errorf("images: %+v", after)
	}
	dirs, err := os.ReadDir(h.root + "/state/images")
	if err != nil || len(dirs) != len(before) {
		t.Errorf("folders of images: %v %v", dirs, err)
	}
	h.ok("image", "pull", reg.Ref("team/app:v1"))
}

// A root file system of the user's own runs from where it is, is noticed when it
// changed, and is never touched.
func TestARegisteredImageRuns(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var def api.Image
	h.json(&def, "image", "show", "debian-bookworm", "--json")
	own := filepath.Join(t.TempDir(), "own.ext4")
	if out, err := exec.Command("cp", "--sparse=always", filepath.Join(h.root, "state/images", def.ID, "rootfs.ext4"), own).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	h.ok("image", "register", own, "--name", "own")
	r := h.ok("vm", "run", "--name", "web", "--image", "own", "--", "sh", "-c", "echo kept > /srv/a; cat /srv/a")
	if r.stdout != "kept\n" {
		t.Errorf("%v", r)
	}
	fi, err := os.Stat(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(own, fi.ModTime().Add(1e9), fi.ModTime().Add(1e9)); err != nil {
		t.Fatal(err)
	}
	h.fails(5, []string{"changed since"}, "vm", "start", "web")
	if r := h.ok("image", "list"); !strings.Contains(r.stdout, "own (broken)") {
		t.Errorf("%v", r)
	}
	h.ok("image", "register", own, "--name", "own", "--replace")
	h.ok("image", "promote", "own")
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	r = h.ok("vm", "exec", "--start", "web", "cat", "/srv/a")
	if r.stdout != "kept\n" {
		t.Errorf("%v", r)
	}
}

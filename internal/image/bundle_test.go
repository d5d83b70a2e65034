package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/bundle"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/fetch"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull/pulltest"
	"github.com/bangervm/banger/internal/signature"
)

// kernels is the fake beside the kernel room: it keeps one kernel by name, and
// notes what was installed.
type kernels struct {
	dir       layout.KernelDir
	name      string
	installed map[string]string // name wanted → text of its vmlinux
	err       error
}

func (k *kernels) Files(_ context.Context, name string) (layout.KernelDir, error) {
	if name != k.name {
		return layout.KernelDir{}, api.Errorf(api.KindNotFound, "cannot find kernel %q", name)
	}
	return k.dir, nil
}

func (k *kernels) Install(_ context.Context, dir layout.KernelDir, name string) (string, error) {
	b, err := os.ReadFile(dir.VMLinux())
	if k.installed == nil {
		k.installed = map[string]string{}
	}
	k.installed[name] = string(b)
	return name + "-here", errors.Join(err, k.err)
}

// other makes another host's manager, whose kernel is k.
func other(t *testing.T, items pulltest.Entries) (*fixture, *kernels) {
	t.Helper()
	h, b := pulltest.NewHost(t, t.TempDir()), &builder{}
	k := &kernels{dir: layout.KernelDir{Dir: t.TempDir()}, name: DefaultKernel}
	for _, path := range kernelFiles(k.dir) {
		pulltest.Must(t, os.WriteFile(path, []byte("text of "+filepath.Base(path)), 0o600))
	}
	downloads := fetch.New(fetch.Options{Pause: func(int) time.Duration { return 0 }})
	opt := Options{
		Build: b.build, Kernels: k,
		Sources: map[string]Source{FromBundle: Bundles{Downloads: downloads, Kernels: k, Now: time.Now}},
	}
	if items != nil {
		opt.Catalog = items
	}
	return &fixture{New(h.L, h.DB, h.Ops, h.Log, opt), h, b}, k
}

// made waits for an operation that must succeed, and decodes its result.
func made[T any](t *testing.T, f *fixture, op api.Operation, err error) T {
	t.Helper()
	var v T
	pulltest.Must(t, err)
	op, err = f.Ops.Wait(t.Context(), op.ID)
	pulltest.Must(t, err)
	if op.Error != nil {
		t.Fatal(op.Error)
	}
	pulltest.Must(t, json.Unmarshal(op.Result, &v))
	return v
}

// failed waits for an operation that must fail.
func failed(t *testing.T, f *fixture, op api.Operation, err error) error {
	t.Helper()
	if err != nil {
		return err
	}
	op, err = f.Ops.Wait(t.Context(), op.ID)
	pulltest.Must(t, err)
	if op.Error == nil {
		t.Fatalf("it succeeded: %s", op.Result)
	}
	f.NothingLeft(t)
	return op.Error
}

// bundled makes a bundle of the default image.
func makeBundle(t *testing.T, req api.BundleImage) (api.Bundle, *fixture) {
	t.Helper()
	f, _ := other(t, nil)
	_, err := f.Resolve(t.Context(), DefaultName, "", nil)
	pulltest.Must(t, err)
	if req.Path == "" {
		req.Path = filepath.Join(t.TempDir(), "app.tar.zst")
	}
	op, err := f.Bundle(t.Context(), DefaultName, req)
	return made[api.Bundle](t, f, op, err), f
}

func TestABundleIsWrittenAndPulled(t *testing.T) {
	t.Parallel()
	b, from := makeBundle(t, api.BundleImage{})
	content, err := os.ReadFile(b.Path)
	pulltest.Must(t, err)
	sum := sha256.Sum256(content)
	if b.Digest != "sha256:"+hex.EncodeToString(sum[:]) || b.SizeBytes != int64(len(content)) || b.Image != DefaultName || len(b.Members) != 1 {
		t.Errorf("bundle: %+v", b)
	}
	again, _ := makeBundle(t, api.BundleImage{})
	if again.Digest != b.Digest {
		t.Errorf("the same image gave %s and %s", b.Digest, again.Digest)
	}

	f, _ := other(t, nil)
	op, err := f.Pull(t.Context(), api.PullImage{Name: b.Path})
	i := made[api.Image](t, f, op, err)
	if i.Name != "app" || i.Kind != KindBundle || i.Reference != b.Path || i.Kernel != DefaultKernel || !i.Changed || i.Source["bundle"] != b.Digest {
		t.Errorf("image: %+v", i)
	}
	want, err := from.Show(t.Context(), DefaultName)
	pulltest.Must(t, err)
	if d := cmp.Diff(want.Config, i.Config); d != "" {
		t.Error(d)
	}
	if text, err := os.ReadFile(f.L.Image(i.ID).RootFS()); err != nil || string(text) != "root file system" {
		t.Errorf("root file system: %q, %v", text, err)
	}
	if i.Digest == want.Digest {
		t.Error("a bundle's image has the digest of what was built: whoever makes bundles could put theirs in its place")
	}
	op, err = f.Pull(t.Context(), api.PullImage{Name: b.Path})
	if i := made[api.Image](t, f, op, err); i.Changed {
		t.Error("again: changed")
	}
	op, err = f.Pull(t.Context(), api.PullImage{Name: "file://" + b.Path, As: "mine"})
	if i := made[api.Image](t, f, op, err); i.Name != "mine" || i.Digest == "" {
		t.Errorf("by another name: %+v", i)
	}
	// Bundled again where it came to, it is the same bundle.
	op, err = f.Bundle(t.Context(), "app", api.BundleImage{Path: filepath.Join(t.TempDir(), "x")})
	re := made[api.Bundle](t, f, op, err)
	if cmp.Diff(b.Members, re.Members) != "" {
		t.Errorf("bundled again: %+v, %+v", re.Members, b.Members)
	}
	f.NothingLeft(t)
}

// A work seed goes along, and is part of what the image is.
func TestABundleBringsTheWorkSeed(t *testing.T) {
	t.Parallel()
	from, _ := other(t, nil)
	home, dir := t.TempDir(), t.TempDir()
	path := userFile(t, dir, "root.ext4", "mine")
	seen := map[string]string{}
	for _, text := range []string{"one", "two"} {
		pulltest.Must(t, os.WriteFile(filepath.Join(home, ".profile"), []byte(text), 0o600))
		if _, err := from.register(t, api.RegisterImage{Root: path, Name: text, WorkSeed: home}); err != nil {
			t.Fatal(err)
		}
		op, err := from.Promote(t.Context(), text, api.PromoteImage{})
		made[api.Image](t, from, op, err)
		op, err = from.Bundle(t.Context(), text, api.BundleImage{Path: filepath.Join(dir, text+".tar.zst")})
		b := made[api.Bundle](t, from, op, err)
		if len(b.Members) != 2 {
			t.Errorf("%s: %+v", text, b)
		}

		to, _ := other(t, nil)
		op, err = to.Pull(t.Context(), api.PullImage{Name: b.Path})
		i := made[api.Image](t, to, op, err)
		out, err := exec.Command("debugfs", "-R", "cat /.profile", to.L.Image(i.ID).WorkSeed()).Output()
		if err != nil || string(out) != text {
			t.Errorf("%s: the seed has %q: %v", text, out, err)
		}
		if was, ok := seen[i.ID]; ok {
			t.Errorf("with the seed %q it is the image with the seed %q", text, was)
		}
		seen[i.ID] = text
		to.NothingLeft(t)
	}
}

// The content counts, all of it: nobody's image stands for another's.
func TestDigestOfABundlesImage(t *testing.T) {
	t.Parallel()
	member := func(name, digest string) bundle.Member { return bundle.Member{Name: name, Digest: "sha256:" + digest} }
	seen := map[string]string{}
	for name, c := range map[string]struct {
		d       bundled
		members []bundle.Member
	}{
		"one":            {bundled{}, []bundle.Member{member(memberRoot, "a")}},
		"another root":   {bundled{}, []bundle.Member{member(memberRoot, "b")}},
		"a seed":         {bundled{}, []bundle.Member{member(memberRoot, "a"), member(memberSeed, "a")}},
		"another seed":   {bundled{}, []bundle.Member{member(memberRoot, "a"), member(memberSeed, "b")}},
		"another config": {bundled{Config: api.ImageConfig{User: "web"}}, []bundle.Member{member(memberRoot, "a")}},
	} {
		digest, err := c.d.digestOf(bundle.Manifest{Members: c.members})
		if err != nil {
			t.Fatal(err)
		}
		if other := seen[digest]; other != "" {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[digest] = name
	}
}

func TestABundleWithItsKernel(t *testing.T) {
	t.Parallel()
	b, _ := makeBundle(t, api.BundleImage{WithKernel: true})
	if b.Kernel != DefaultKernel || len(b.Members) != 5 {
		t.Errorf("bundle: %+v", b)
	}
	f, k := other(t, nil)
	op, err := f.Pull(t.Context(), api.PullImage{Name: b.Path})
	i := made[api.Image](t, f, op, err)
	if i.Kernel != DefaultKernel+"-here" || k.installed[DefaultKernel] != "text of vmlinux" {
		t.Errorf("kernel %q, installed %v", i.Kernel, k.installed)
	}
	left, err := os.ReadDir(f.L.Image(i.ID).Dir)
	if err != nil || len(left) != 2 {
		t.Errorf("the image's folder holds %v, %v", left, err)
	}
	// The image is here, its kernel is not any more: the bundle has it.
	k.installed, k.name = nil, "another"
	op, err = f.Pull(t.Context(), api.PullImage{Name: b.Path})
	if i := made[api.Image](t, f, op, err); i.Changed || k.installed[DefaultKernel] == "" {
		t.Errorf("changed %v, installed %v", i.Changed, k.installed)
	}
	broken, k := other(t, nil)
	k.err = api.Errorf(api.KindUnsupported, "no such kernel here")
	op, err = broken.Pull(t.Context(), api.PullImage{Name: b.Path})
	if err := failed(t, broken, op, err); api.KindOf(err) != api.KindUnsupported {
		t.Errorf("the kernel cannot be installed: %v", err)
	}
}

func TestWritingABundleThatCannotBe(t *testing.T) {
	t.Parallel()
	b, f := makeBundle(t, api.BundleImage{})
	dir := filepath.Dir(b.Path)
	begin := func(ref string, req api.BundleImage) error {
		op, err := f.Bundle(t.Context(), ref, req)
		return failed(t, f, op, err)
	}
	for name, c := range map[string]struct {
		ref  string
		req  api.BundleImage
		kind api.Kind
	}{
		"the file is there":    {DefaultName, api.BundleImage{Path: b.Path}, api.KindExists},
		"no such image":        {"none", api.BundleImage{Path: dir + "/x"}, api.KindNotFound},
		"a relative path":      {DefaultName, api.BundleImage{Path: "x"}, api.KindInvalid},
		"no such folder":       {DefaultName, api.BundleImage{Path: dir + "/no/x"}, api.KindNotFound},
		"the file is a folder": {DefaultName, api.BundleImage{Path: dir, Replace: true}, api.KindInternal},
	} {
		if err := begin(c.ref, c.req); api.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.opt.Kernels.(*kernels).name = "another"
	if err := begin(DefaultName, api.BundleImage{Path: dir + "/x", WithKernel: true}); api.KindOf(err) != api.KindNotFound {
		t.Errorf("its kernel is not here: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
	op, err := f.Bundle(t.Context(), DefaultName, api.BundleImage{Path: b.Path, Replace: true})
	if again := made[api.Bundle](t, f, op, err); again.Digest != b.Digest {
		t.Errorf("replaced by %s", again.Digest)
	}
}

func TestPullingWhatIsNoBundle(t *testing.T) {
	t.Parallel()
	b, _ := makeBundle(t, api.BundleImage{})
	good, err := os.ReadFile(b.Path)
	pulltest.Must(t, err)
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		pulltest.Must(t, os.WriteFile(path, text, 0o600))
		return path
	}
	hostile := func(name string, content any) string {
		root := file("root", []byte("root"))
		var out bytes.Buffer
		_, err := bundle.Write(t.Context(), &out, "image", content, []bundle.File{{Name: memberRoot, Path: root}}, nil)
		pulltest.Must(t, err)
		return file(name, out.Bytes())
	}
	f, _ := other(t, nil)
	for name, c := range map[string]struct {
		ref  string
		kind api.Kind
		says string
	}{
		"missing":            {dir + "/none", api.KindNotFound, "none"},
		"a folder":           {dir, api.KindInvalid, "not a regular file"},
		"text":               {file("text", []byte("hello")), api.KindInvalid, "cannot pull " + dir + "/text"},
		"cut":                {file("cut", good[:len(good)-20]), api.KindInvalid, "cut"},
		"changed":            {file("changed", append(bytes.Clone(good), 0)), api.KindInvalid, "changed"},
		"relative":           {"./x", api.KindInvalid, "not an absolute path"},
		"on another host":    {"file://far/x", api.KindInvalid, "file:///PATH"},
		"plain http":         {"http://x.example/app.tar.zst", api.KindDenied, "plain http"},
		"for another host":   {hostile("arch", bundled{Arch: "pdp11"}), api.KindUnsupported, "pdp11"},
		"an odd kernel":      {hostile("kernel", bundled{Arch: runtime.GOARCH, Kernel: "../../etc"}), api.KindInvalid, "is no name"},
		"an odd description": {hostile("odd", map[string]string{"hello": "x"}), api.KindInvalid, "description"},
		"a zero byte":        {hostile("zero", bundled{Arch: runtime.GOARCH, Config: api.ImageConfig{Env: []string{"A=\x00"}}}), api.KindInvalid, "zero byte"},
		"many texts":         {hostile("many", bundled{Arch: runtime.GOARCH, Packages: make([]string, maxDescribed+1)}), api.KindInvalid, "more than"},
		"no name":            {file("UPPER_.tar.zst", good), api.KindInvalid, "--name"},
	} {
		op, err := f.Pull(t.Context(), api.PullImage{Name: c.ref})
		if err := failed(t, f, op, err); api.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s)", name, err, api.KindOf(err))
		}
	}
	list, err := f.List(t.Context())
	if err != nil || len(list) > 0 {
		t.Errorf("images: %v, %v", list, err)
	}
	if _, err := f.Resolve(t.Context(), b.Path, "", nil); api.KindOf(err) != api.KindInvalid || !strings.Contains(api.AsError(err).Hint, "image pull") {
		t.Errorf("used as an image: %v", err)
	}
}

// site serves a folder and counts requests.
func site(t *testing.T, dir string) (string, *atomic.Int32) {
	t.Helper()
	var n atomic.Int32
	files := http.FileServer(http.Dir(dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, &n
}

func signer(t *testing.T) (func(path string), *signature.Key) {
	t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	pulltest.Must(t, err)
	key, err := signature.ParseKey(public.String())
	pulltest.Must(t, err)
	return func(path string) {
		b, err := os.ReadFile(path)
		pulltest.Must(t, err)
		r := minisign.NewReader(bytes.NewReader(b))
		_, err = r.Read(make([]byte, len(b)+1))
		pulltest.Must(t, err)
		pulltest.Must(t, os.WriteFile(path+signature.Suffix, r.Sign(private), 0o600))
	}, &key
}

func TestABundleFromAURL(t *testing.T) {
	t.Parallel()
	b, _ := makeBundle(t, api.BundleImage{})
	at, _ := site(t, filepath.Dir(b.Path))
	f, _ := other(t, nil)
	op, err := f.Pull(t.Context(), api.PullImage{Name: at + "/app.tar.zst"})
	pulltest.Must(t, err)
	i := made[api.Image](t, f, op, nil)
	if i.Name != "app" || i.Reference != at+"/app.tar.zst" || i.Source["bundle"] != b.Digest {
		t.Errorf("image: %+v", i)
	}
	if left, err := os.ReadDir(f.L.Image(i.ID).Dir); err != nil || len(left) != 2 {
		t.Errorf("the image's folder holds %v, %v", left, err)
	}
	op, err = f.Pull(t.Context(), api.PullImage{Name: at + "/none.tar.zst"})
	if err := failed(t, f, op, err); api.KindOf(err) != api.KindNotFound {
		t.Errorf("missing: %v", err)
	}
	op, err = f.Pull(t.Context(), api.PullImage{Name: at + "/app.tar.zst"})
	if i := made[api.Image](t, f, op, err); i.Changed {
		t.Error("again: changed")
	}
}

// A bundle of a catalog, or pulled with a key, must be the one named and signed
// by that key; nothing of any other is unpacked.
func TestABundleThatMustBeSigned(t *testing.T) {
	t.Parallel()
	b, _ := makeBundle(t, api.BundleImage{})
	sign, key := signer(t)
	forge, _ := signer(t)
	dir := filepath.Dir(b.Path)
	at, _ := site(t, dir)
	item := func(location, digest string, key *signature.Key) pulltest.Entries {
		return pulltest.Entries{{Catalog: "ours", Key: key, Entry: catalog.Entry{Name: "app", Kernel: "k", Sources: []catalog.Source{
			{Kind: catalog.KindBundle, Bundle: &catalog.Download{URL: location, Digest: digest, SizeBytes: b.SizeBytes}},
			{Kind: catalog.KindDebian, Debian: &catalog.Debian{Suite: "bookworm"}}, // is no way round a bad signature
		}}}}
	}
	wrong := "sha256:" + strings.Repeat("0", 64)
	pullEntry := func(items pulltest.Entries) (*fixture, api.Operation, error) {
		f, _ := other(t, items)
		op, err := f.Pull(t.Context(), api.PullImage{Name: "app"})
		return f, op, err
	}
	refused := func(what, says string, items pulltest.Entries) {
		t.Helper()
		f, op, err := pullEntry(items)
		if err := failed(t, f, op, err); api.KindOf(err) != api.KindDenied || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", what, err)
		}
		if f.b.Builds.Load() > 0 {
			t.Errorf("%s: another source was taken instead", what)
		}
	}
	for _, location := range []string{b.Path, at + "/app.tar.zst"} {
		pulltest.Must(t, os.RemoveAll(b.Path+signature.Suffix))
		refused("unsigned", "not signed", item(location, b.Digest, key))
		refused("another digest", "its catalog says", item(location, wrong, nil))
		forge(b.Path)
		refused("signed by another", "not by the trusted "+key.ID(), item(location, b.Digest, key))
		sign(b.Path)
		refused("signed, of another digest", "its catalog says", item(location, wrong, key))
		f, op, err := pullEntry(item(location, b.Digest, key))
		i := made[api.Image](t, f, op, err)
		if i.Name != "app" || i.Kind != KindBundle || i.Reference != "app" {
			t.Errorf("image: %+v", i)
		}
		op, err = f.Pull(t.Context(), api.PullImage{Name: "app"})
		if i := made[api.Image](t, f, op, err); i.Changed {
			t.Error("again: changed")
		}
		// The same by hand.
		plain, _ := other(t, nil)
		op, err = plain.Pull(t.Context(), api.PullImage{Name: location, PublicKey: key.String()})
		made[api.Image](t, plain, op, err)
		forge(b.Path)
		strict, _ := other(t, nil)
		op, err = strict.Pull(t.Context(), api.PullImage{Name: location, PublicKey: key.String()})
		if err := failed(t, strict, op, err); api.KindOf(err) != api.KindDenied {
			t.Errorf("by hand, forged: %v", err)
		}
	}
	f, _ := other(t, nil)
	for name, req := range map[string]api.PullImage{"no key": {Name: b.Path, PublicKey: "RWQ"}, "no bundle": {Name: DefaultName, PublicKey: key.String()}} {
		if _, err := f.Pull(t.Context(), req); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A daemon killed while it writes a bundle leaves nothing of it.
// Who may write to a bundle can do so after it was verified: nothing of what he
// writes stays, its kernel least of all. Nor does its description name a kernel
// but in the field that is checked.
func TestABundleThatChangesOnceVerified(t *testing.T) {
	t.Parallel()
	_, k := other(t, nil)
	of := func(root []byte, source map[string]string, with ...string) []byte {
		path := filepath.Join(t.TempDir(), "root")
		pulltest.Must(t, os.WriteFile(path, root, 0o600))
		files := []bundle.File{{Name: memberRoot, Path: path}}
		for i, name := range kernelFiles(layout.KernelDir{Dir: kernelFolder})[:len(with)] {
			files = append(files, bundle.File{Name: name, Path: with[i]})
		}
		var b bytes.Buffer
		_, err := bundle.Write(t.Context(), &b, "image", bundled{Arch: runtime.GOARCH, Source: source}, files, nil)
		pulltest.Must(t, err)
		return b.Bytes()
	}
	random := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	good, evil := of(random, map[string]string{"kernel": "../../x"}), of([]byte("evil"), nil, kernelFiles(k.dir)...)
	sum := sha256.Sum256(good)
	for name, swap := range map[string]bool{"as it was": false, "swapped": true} {
		path := filepath.Join(t.TempDir(), "app.tar.zst")
		pulltest.Must(t, os.WriteFile(path, good, 0o600))
		f, size, err := openBundle(path)
		pulltest.Must(t, err)
		work := bundleWork{Bundles: Bundles{Kernels: k, Now: time.Now}, at: path, digest: "sha256:" + hex.EncodeToString(sum[:])}
		i, err := work.make(t.Context(), f, size, layout.ImageDir{Dir: t.TempDir()}, func(stage string, p api.Progress) {
			if swap && stage == "verifying" && p.Done == size {
				pulltest.Must(t, os.WriteFile(path, evil, 0o600))
			}
		})
		pulltest.Must(t, f.Close())
		if swap && (api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), "changed while it was read") || len(k.installed) > 0) {
			t.Errorf("%s: %v, installed %v", name, err, k.installed)
		}
		if !swap && (err != nil || i.Source["kernel"] != "") {
			t.Errorf("%s: %v, %v", name, err, i.Source)
		}
	}
}

func TestADaemonKilledWhileBundling(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	h, b := pulltest.NewHost(t, root), &builder{}
	f := &fixture{New(h.L, h.DB, h.Ops, h.Log, Options{Build: b.build}), h, b}
	_, err := f.Resolve(t.Context(), DefaultName, "", nil)
	pulltest.Must(t, err)
	out := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	op, err := f.Ops.Begin(t.Context(), kindBundle, DefaultName, bundleParams{Ref: DefaultName, BundleImage: api.BundleImage{Path: out + "/x"}})
	pulltest.Must(t, err)
	if _, err := f.Ops.Wait(t.Context(), op.ID()); err != nil {
		t.Fatal(err)
	}
	pulltest.Must(t, os.Remove(out+"/x"))
	pulltest.Must(t, os.WriteFile(partial(op, out+"/x"), []byte("half"), 0o600))
	pulltest.Must(t, os.WriteFile(out+"/mine", nil, 0o600))
	// What the next daemon's undo does, once and again.
	for range 2 {
		if err := f.removePartial(ctx, op); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 1 || left[0].Name() != "mine" {
		t.Errorf("left %v, %v", left, err)
	}
}

// FuzzParseBundled feeds descriptions: what is taken is one this host can use.
func FuzzParseBundled(f *testing.F) {
	f.Add([]byte(`{"name":"app","arch":"` + runtime.GOARCH + `","kernel":"k","config":{"env":["A=b"]},"source":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseBundled(b)
		if err == nil && (d.Arch != runtime.GOARCH || d.Kernel != "" && checkName(d.Kernel) != nil) {
			t.Errorf("%+v", d)
		}
	})
}

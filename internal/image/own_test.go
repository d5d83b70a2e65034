package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/pull/pulltest"
	"github.com/bangervm/banger/internal/store"
)

// userFile makes a root file system of the user's own, with a text in it.
func userFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	pulltest.Must(t, ext4.Write(path, ext4.UUID(text), func(tw *tar.Writer) error {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "text", Size: int64(len(text)), Mode: 0o644}); err != nil {
			return err
		}
		_, err := io.WriteString(tw, text)
		return err
	}))
	return path
}

func (f *fixture) register(t *testing.T, req api.RegisterImage) (api.Image, *api.Error) {
	t.Helper()
	op, err := f.Register(t.Context(), req)
	if err != nil {
		return api.Image{}, api.AsError(err)
	}
	return f.end(t, op)
}

func TestRegisteredFilesStayTheUsers(t *testing.T) {
	t.Parallel()
	f, home := newFixture(t, t.TempDir()), t.TempDir()
	path := userFile(t, home, "root.ext4", "mine")
	before, err := os.ReadFile(path)
	pulltest.Must(t, err)
	i, aerr := f.register(t, api.RegisterImage{Root: path, Name: "mine", Kernel: "own-kernel"})
	if aerr != nil || i.Kind != KindRegistered || i.Reference != path || i.Kernel != "own-kernel" || !strings.HasPrefix(i.Digest, "sha256:") || i.Error != nil || !i.Changed {
		t.Fatalf("%+v %v", i, aerr)
	}
	rec, err := f.Resolve(t.Context(), "mine", "never", nil)
	pulltest.Must(t, err)
	if root, err := f.Usable(rec); err != nil || root != path {
		t.Errorf("%q %v", root, err)
	}
	if again, aerr := f.register(t, api.RegisterImage{Root: path, Name: "mine", Kernel: "own-kernel"}); aerr != nil || again.Changed || again.ID != i.ID {
		t.Errorf("the same again: %+v %v", again, aerr)
	}
	if _, err := f.Delete(t.Context(), "mine"); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the user's file: %v", err)
	}
	if _, err := os.Stat(f.L.Image(i.ID).Dir); !os.IsNotExist(err) {
		t.Error(err)
	}
	f.NothingLeft(t)
}

// A file of the user's own that changed or is gone is noticed by list, show and
// whoever wants to start from it; registered again it is good.
func TestRegisteredFilesAreNoticedWhenChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(t *testing.T, path string)
		says   string
		mended bool // by registering it again
		same   bool // as the same image
	}{
		"gone":    {func(t *testing.T, path string) { pulltest.Must(t, os.Remove(path)) }, "its files are gone", false, false},
		"touched": {func(t *testing.T, path string) { pulltest.Must(t, os.Chtimes(path, time.Time{}, time.Unix(1e9, 0))) }, "changed since", true, true},
		"replaced": {func(t *testing.T, path string) {
			pulltest.Must(t, os.Remove(path))
			userFile(t, filepath.Dir(path), filepath.Base(path), "other")
		}, "changed since", true, false},
		"a folder now": {func(t *testing.T, path string) {
			pulltest.Must(t, os.Remove(path))
			pulltest.Must(t, os.Mkdir(path, 0o700))
		}, "not a regular file", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, t.TempDir())
			path := userFile(t, t.TempDir(), "root.ext4", "mine")
			i, aerr := f.register(t, api.RegisterImage{Root: path, Name: "mine"})
			if aerr != nil {
				t.Fatal(aerr)
			}
			c.change(t, path)
			shown, err := f.Show(t.Context(), "mine")
			if err != nil || shown.Error == nil || !strings.Contains(shown.Error.Message, c.says) {
				t.Errorf("show: %+v %v", shown.Error, err)
			}
			list, err := f.List(t.Context())
			if err != nil || len(list) != 1 || list[0].Error == nil {
				t.Errorf("list: %+v %v", list, err)
			}
			_, err = f.Resolve(t.Context(), "mine", "", nil)
			if err == nil || api.KindOf(err) == api.KindNotFound || !strings.Contains(err.Error(), c.says) || api.AsError(err).Hint == "" {
				t.Errorf("resolve: %v (%s)", err, api.KindOf(err))
			}
			if _, err := f.Promote(t.Context(), "mine", api.PromoteImage{}); err == nil {
				t.Error("promoted")
			}
			again, aerr := f.register(t, api.RegisterImage{Root: path, Name: "mine", Replace: true})
			if (aerr == nil) != c.mended {
				t.Fatalf("registered again: %v", aerr)
			}
			if !c.mended {
				return
			}
			if !again.Changed || (again.ID == i.ID) != c.same || again.Error != nil {
				t.Errorf("%+v", again)
			}
			if _, err := f.Resolve(t.Context(), "mine", "never", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// One that changed in secret is not taken over as what was registered.
func TestAChangedFileIsNotPromoted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	path := userFile(t, t.TempDir(), "root.ext4", "mine")
	i, aerr := f.register(t, api.RegisterImage{Root: path, Name: "mine"})
	if aerr != nil {
		t.Fatal(aerr)
	}
	fi, err := os.Stat(path)
	pulltest.Must(t, err)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	pulltest.Must(t, err)
	_, err = file.WriteAt([]byte("changed"), fi.Size()-100)
	pulltest.Must(t, err)
	pulltest.Must(t, file.Close())
	pulltest.Must(t, os.Chtimes(path, time.Time{}, fi.ModTime()))
	op, err := f.Promote(t.Context(), "mine", api.PromoteImage{})
	pulltest.Must(t, err)
	if p, aerr := f.end(t, op); aerr == nil || !strings.Contains(aerr.Message, "changed since it was registered") {
		t.Errorf("%+v %v", p, aerr)
	}
	rec, err := f.Resolve(t.Context(), "mine", "never", nil)
	if err != nil || rec.ID != i.ID || rec.Kind != KindRegistered {
		t.Errorf("%+v %v", rec, err)
	}
	f.NothingLeft(t)
}

func TestPromotedImagesNeedTheFileNoMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, t.TempDir())
	path := userFile(t, t.TempDir(), "root.ext4", "mine")
	before, err := os.ReadFile(path)
	pulltest.Must(t, err)
	i, aerr := f.register(t, api.RegisterImage{Root: path, Name: "mine", Kernel: "k"})
	if aerr != nil {
		t.Fatal(aerr)
	}
	pulltest.Must(t, f.DB.InsertVM(t.Context(), store.VM{ID: "0011223344556677", Name: "user", ImageID: i.ID, ImageName: "mine", CreatedAt: time.Now()}))
	op, err := f.Promote(t.Context(), "mine", api.PromoteImage{})
	pulltest.Must(t, err)
	p, aerr := f.end(t, op)
	if aerr != nil || p.Kind != KindPromoted || p.ID != i.ID || p.Digest != i.Digest || p.Kernel != "k" || !p.Changed {
		t.Fatalf("%+v %v", p, aerr)
	}
	pulltest.Must(t, os.Remove(path))
	rec, err := f.Resolve(t.Context(), "mine", "never", nil)
	pulltest.Must(t, err)
	root, err := f.Usable(rec)
	if err != nil || root != f.L.Image(i.ID).RootFS() {
		t.Errorf("%s %v", root, err)
	}
	copied, err := os.ReadFile(root)
	if err != nil || string(copied) != string(before) {
		t.Errorf("the copy differs: %v", err)
	}
	op, err = f.Promote(t.Context(), "mine", api.PromoteImage{})
	pulltest.Must(t, err)
	if again, aerr := f.end(t, op); aerr != nil || again.Changed {
		t.Errorf("again: %+v %v", again, aerr)
	}
	f.NothingLeft(t)
	if _, err := f.Resolve(t.Context(), DefaultName, "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Promote(t.Context(), DefaultName, api.PromoteImage{}); api.KindOf(err) != api.KindBadState {
		t.Errorf("of a managed image: %v", err)
	}
}

// A seed is part of what an image is, and goes along when it is promoted.
func TestWorkSeedsBelongToTheImage(t *testing.T) {
	t.Parallel()
	f, home := newFixture(t, t.TempDir()), t.TempDir()
	pulltest.Must(t, os.WriteFile(filepath.Join(home, ".profile"), []byte("one"), 0o600))
	path := userFile(t, t.TempDir(), "root.ext4", "mine")
	register := func(seed string) api.Image {
		t.Helper()
		i, err := f.register(t, api.RegisterImage{Root: path, Name: "mine", WorkSeed: seed, Replace: true})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	seedOf := func(i api.Image) string {
		out, err := exec.Command("debugfs", "-R", "cat /.profile", f.L.Image(i.ID).WorkSeed()).Output()
		pulltest.Must(t, err)
		return string(out)
	}
	plain, one, again := register(""), register(home), register(home)
	if plain.ID == one.ID || again.ID != one.ID || again.Changed || seedOf(one) != "one" {
		t.Errorf("%s %s %s, seed %q", plain.ID, one.ID, again.ID, seedOf(one))
	}
	pulltest.Must(t, os.WriteFile(filepath.Join(home, ".profile"), []byte("two"), 0o600))
	two := register(home)
	if two.ID == one.ID || !two.Changed || seedOf(two) != "two" {
		t.Errorf("another seed: %+v", two)
	}
	for seed, want := range map[string]string{"": "two", home: "three"} {
		op, err := f.Promote(t.Context(), "mine", api.PromoteImage{WorkSeed: seed})
		pulltest.Must(t, err)
		if p, aerr := f.end(t, op); aerr != nil || p.Kind != KindPromoted || seedOf(p) != want && seed == "" {
			t.Errorf("promoted: %+v %v", p, aerr)
		}
	}
	if _, err := f.register(t, api.RegisterImage{Root: path, Name: "x", WorkSeed: "relative"}); err == nil || err.Kind != api.KindInvalid {
		t.Error(err)
	}
	f.NothingLeft(t)
}

func TestCopiesKeepHoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	f, err := os.Create(src)
	pulltest.Must(t, err)
	for _, at := range []int64{0, 64 << 20, 200<<20 - 5} {
		_, err := f.WriteAt([]byte("here!"), at)
		pulltest.Must(t, err)
	}
	pulltest.Must(t, f.Truncate(256<<20))
	pulltest.Must(t, f.Close())
	pulltest.Must(t, copyFile(t.Context(), dst, src, func(string, api.Progress) {}))
	a, _, err := digestFile(t.Context(), src, nil)
	pulltest.Must(t, err)
	b, size, err := digestFile(t.Context(), dst, nil)
	if err != nil || a != b || size != 256<<20 {
		t.Errorf("%s %s %d %v", a, b, size, err)
	}
	if used := diskUsage(dst); used > 1<<20 {
		t.Errorf("the copy takes %d bytes", used)
	}
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	f, dir := newFixture(t, t.TempDir()), t.TempDir()
	f.opt.KernelKnown = func(_ context.Context, name string) error {
		return api.Errorf(api.KindNotFound, "cannot find kernel %q", name)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		pulltest.Must(t, os.WriteFile(path, b, 0o600))
		return path
	}
	good := userFile(t, dir, "good.ext4", "good")
	image, err := os.ReadFile(good)
	pulltest.Must(t, err)
	journal := append([]byte(nil), image...)
	journal[1024+0x60] |= 0x4
	disk := make([]byte, 4096)
	disk[510], disk[511] = 0x55, 0xaa
	for name, c := range map[string]struct {
		req  api.RegisterImage
		kind api.Kind
		says string
	}{
		"no file":         {api.RegisterImage{Root: filepath.Join(dir, "none"), Name: "x"}, api.KindNotFound, "no such file"},
		"relative":        {api.RegisterImage{Root: "root.ext4", Name: "x"}, api.KindInvalid, "absolute"},
		"a folder":        {api.RegisterImage{Root: dir, Name: "x"}, api.KindInvalid, "regular file"},
		"no name":         {api.RegisterImage{Root: good}, api.KindInvalid, "name"},
		"bad name":        {api.RegisterImage{Root: good, Name: "No"}, api.KindInvalid, "name"},
		"an initrd":       {api.RegisterImage{Root: good, Name: "x", Initrd: "/boot/initrd.img"}, api.KindUnsupported, "initrd"},
		"a kernel's path": {api.RegisterImage{Root: good, Name: "x", Kernel: "./vmlinux"}, api.KindInvalid, "import it first"},
		"unknown kernel":  {api.RegisterImage{Root: good, Name: "x", Kernel: "none"}, api.KindNotFound, "none"},
		"too short":       {api.RegisterImage{Root: write("short", []byte("x")), Name: "x"}, api.KindInvalid, "no ext4"},
		"no ext4":         {api.RegisterImage{Root: write("zero", make([]byte, 8192)), Name: "x"}, api.KindInvalid, "no ext4"},
		"a whole disk":    {api.RegisterImage{Root: write("disk", disk), Name: "x"}, api.KindInvalid, "root partition"},
		"cut short":       {api.RegisterImage{Root: write("cut", image[:len(image)/2]), Name: "x"}, api.KindInvalid, "spans"},
		"not unmounted":   {api.RegisterImage{Root: write("dirty", journal), Name: "x"}, api.KindInvalid, "journal"},
		"a name of other": {api.RegisterImage{Root: good, Name: "taken"}, api.KindExists, "--replace"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.req.Name == "taken" {
				if _, err := f.register(t, api.RegisterImage{Root: userFile(t, dir, "taken.ext4", "taken"), Name: "taken"}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := f.register(t, c.req)
			if err == nil || err.Kind != c.kind || !strings.Contains(err.Message, c.says) {
				t.Errorf("%v (%s)", err, api.KindOf(err))
			}
		})
	}
	f.NothingLeft(t)
}

func FuzzCheckExt4(f *testing.F) {
	good := filepath.Join(f.TempDir(), "good")
	if err := ext4.Write(good, ext4.UUID("x"), func(*tar.Writer) error { return nil }); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkExt4(path, int64(len(b))); err != nil && api.KindOf(err) != api.KindInvalid {
			t.Error(err)
		}
	})
}

// blobCache is a fake beside the real one.
type blobCache map[string]int64

func (c blobCache) Prune(keep map[string]bool, dry bool) (n int, bytes int64, err error) {
	for d, size := range c {
		if !keep[d] {
			n++
			bytes += size
			if !dry {
				delete(c, d)
			}
		}
	}
	return n, bytes, nil
}

func TestPruneTakesWhatNothingUses(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	cache := blobCache{}
	f.opt.Blobs = cache
	ref := func(v string) string { return host + "app:" + v }
	images := map[string]api.Image{}
	for _, v := range []string{"used", "named", "lost", "lost-but-used"} {
		content := "content of " + v
		r.tag(ref(v), content)
		cache[digestOf(content)] = 1000
		images[v] = f.mustPull(t, api.PullImage{Name: ref(v)})
	}
	cache["sha256:nobody's"] = 500
	for id, v := range map[string]string{"0011223344556677": "used", "0011223344556678": "lost-but-used"} {
		pulltest.Must(t, f.DB.InsertVM(t.Context(), store.VM{ID: id, Name: "vm-" + v, ImageID: images[v].ID, CreatedAt: time.Now()}))
	}
	for _, v := range []string{"lost", "lost-but-used"} {
		r.tag(ref(v), "newer "+v)
		cache[digestOf("newer "+v)] = 1000
		f.mustPull(t, api.PullImage{Name: ref(v)})
	}
	own, aerr := f.register(t, api.RegisterImage{Root: userFile(t, t.TempDir(), "r", "r"), Name: "own"})
	if aerr != nil {
		t.Fatal(aerr)
	}
	there := func(i api.Image) bool {
		_, err := os.Stat(f.L.Image(i.ID).Dir)
		return err == nil
	}
	for _, dry := range []bool{true, false} {
		p, err := f.Prune(t.Context(), api.PruneImages{DryRun: dry})
		if err != nil || len(p.Images) != 1 || p.Images[0].ID != images["lost"].ID || p.Blobs != 2 || p.FreedBytes <= 1500 || p.DryRun != dry {
			t.Errorf("dry %v: %+v %v", dry, p, err)
		}
		if there(images["lost"]) != dry {
			t.Errorf("dry %v, and the image is there: %v", dry, there(images["lost"]))
		}
	}
	if p, err := f.Prune(t.Context(), api.PruneImages{}); err != nil || len(p.Images) != 0 || p.Blobs != 0 || p.FreedBytes != 0 {
		t.Errorf("again: %+v %v", p, err)
	}
	for _, dry := range []bool{true, false} {
		p, err := f.Prune(t.Context(), api.PruneImages{All: true, DryRun: dry})
		if err != nil || len(p.Images) != 3 || there(images["named"]) != dry {
			t.Errorf("all, dry %v: %+v %v", dry, p, err)
		}
	}
	for v, want := range map[string]bool{"used": true, "named": false, "lost-but-used": true} {
		if there(images[v]) != want {
			t.Errorf("%s is there: %v", v, !want)
		}
	}
	if !there(own) {
		t.Error("the user's own registration went")
	}
	f.NothingLeft(t)
}

// Half a stream leaves nothing; a whole one is an archive like any other.
func TestImportOfAStream(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	f.sources[FromArchive] = archives{r}
	broken := errors.New("the client is gone")
	_, err := f.ImportStream(t.Context(), api.ImportImage{Name: "app"}, io.MultiReader(strings.NewReader("half"), errReader{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	f.NothingLeft(t)
	op, err := f.ImportStream(t.Context(), api.ImportImage{Name: "app", Kernel: "k"}, strings.NewReader("whole"))
	pulltest.Must(t, err)
	i, aerr := f.end(t, op)
	if aerr != nil || i.Name != "app" || i.Kernel != "k" || i.Digest != digestOf("whole") {
		t.Errorf("%+v %v", i, aerr)
	}
	f.NothingLeft(t)
	for _, bad := range []api.ImportImage{{}, {Name: "X"}, {Name: "x", WorkSeed: "relative"}} {
		if _, err := f.ImportStream(t.Context(), bad, strings.NewReader("whole")); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	f.NothingLeft(t)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

// skopeo makes archives as people make them.
func skopeo(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy", "--tmpdir", t.TempDir()}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("skopeo %q (scripts/deps test installs it): %v\n%s", args, err, out)
	}
}

func opened(t *testing.T, a Archive) (*Image, error) {
	t.Helper()
	a.Platform = "linux/amd64"
	if a.Spool == "" {
		a.Spool = t.TempDir()
	}
	return OpenArchive(context.Background(), a)
}

func mustOpen(t *testing.T, a Archive) *Image {
	t.Helper()
	image, err := opened(t, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(image.Close)
	return image
}

func saved(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func gz(b []byte) []byte { return ocitest.Gzip(b).Blob }
func zst(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

func TestArchivesThatSkopeoWrites(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t)
	base := ocitest.Gzip(ocitest.Tar(t, ocitest.Dir("etc"), ocitest.File("etc/x", ocitest.Random(1, 100_000))))
	top := ocitest.Gzip(ocitest.Tar(t, ocitest.File("app", "app")))
	digest := registry.Push(t, "team/app:v1", ocitest.Image(t, v1.Config{Env: []string{"A=1"}, Cmd: []string{"/app"}}, base, top, base))
	dir := t.TempDir()
	copied := func(to string) string {
		skopeo(t, "copy", "--src-tls-verify=false", "docker://"+registry.Ref("team/app:v1"), to)
		_, path, _ := strings.Cut(to, ":")
		path, _, _ = strings.Cut(path, ":")
		return path
	}
	layout, layoutTar := copied("oci:"+dir+"/layout:v1"), copied("oci-archive:"+dir+"/layout.tar:reg.example/team/app:v1")
	docker := copied("docker-archive:" + dir + "/docker.tar:reg.example/team/app:v1")
	layoutBytes, err := os.ReadFile(layoutTar)
	if err != nil {
		t.Fatal(err)
	}
	dockerBytes, err := os.ReadFile(docker)
	if err != nil {
		t.Fatal(err)
	}
	blobs := [][]byte{base.Blob, top.Blob, base.Blob}
	tars := [][]byte{base.Tar, top.Tar, base.Tar}
	for name, tc := range map[string]struct {
		archive   Archive
		layers    [][]byte
		reference string
		digest    string // empty: the configuration's
	}{
		"a layout as a folder":      {Archive{Path: layout}, blobs, "", digest},
		"a layout by its tag":       {Archive{Path: layout, Ref: "v1"}, blobs, "", digest},
		"a layout by its digest":    {Archive{Path: layout, Ref: digest}, blobs, "", digest},
		"a layout as a tar":         {Archive{Path: layoutTar}, blobs, "reg.example/team/app:v1", digest},
		"a layout as a tar by name": {Archive{Path: layoutTar, Ref: "reg.example/team/app:v1"}, blobs, "reg.example/team/app:v1", digest},
		"a layout from a pipe":      {Archive{Reader: bytes.NewReader(layoutBytes)}, blobs, "reg.example/team/app:v1", digest},
		"a layout, tar.zst":         {Archive{Path: saved(t, "l.tar.zst", zst(layoutBytes))}, blobs, "reg.example/team/app:v1", digest},
		"a docker archive":          {Archive{Path: docker}, tars, "reg.example/team/app:v1", ""},
		"a docker archive, tar.gz":  {Archive{Path: saved(t, "d.tar.gz", gz(dockerBytes))}, tars, "reg.example/team/app:v1", ""},
		"a docker archive, piped":   {Archive{Reader: bytes.NewReader(gz(dockerBytes)), Ref: "reg.example/team/app:v1"}, tars, "reg.example/team/app:v1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image := mustOpen(t, tc.archive)
			checkLayers(t, image, tc.layers...)
			want := tc.digest
			if want == "" {
				want = image.ConfigDigest
			}
			diff(t, []string{tc.reference, want, want, "linux/amd64"}, []string{image.Reference, image.Digest, image.TargetDigest, image.Platform})
			diff(t, api.ImageConfig{Env: []string{"A=1"}, Cmd: []string{"/app"}}, image.Config)
			for n, archive := range tars {
				diff(t, ocitest.DigestOf(archive), image.Layers[n].DiffID)
			}
		})
	}
}

// config is the configuration of an image with these layers, and its name.
func dockerConfig(t *testing.T, tars ...[]byte) (body, hex string) {
	t.Helper()
	c := map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}}}
	ids := []string{}
	for _, l := range tars {
		ids = append(ids, ocitest.DigestOf(l))
	}
	c["rootfs"] = map[string]any{"type": "layers", "diff_ids": ids}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), strings.TrimPrefix(ocitest.DigestOf(b), "sha256:")
}

// oldDocker is what docker save wrote until version 25.
func oldDocker(t *testing.T, manifest func(config string) string) []byte {
	layer := ocitest.Tar(t, ocitest.File("f", "1"))
	config, hex := dockerConfig(t, layer, layer)
	id, id2 := strings.Repeat("a", 64), strings.Repeat("b", 64)
	return ocitest.Tar(t,
		ocitest.Dir(id+"/"), ocitest.File(id+"/VERSION", "1.0"), ocitest.File(id+"/json", "{}"), ocitest.File(id+"/layer.tar", string(layer)),
		ocitest.Dir(id2+"/"), ocitest.Symlink(id2+"/layer.tar", "../"+id+"/layer.tar"),
		ocitest.File(hex+".json", config), ocitest.File("manifest.json", manifest(hex+".json")), ocitest.File("repositories", "{}"))
}

func TestArchivesThatDockerWrites(t *testing.T) {
	t.Parallel()
	layer := ocitest.Tar(t, ocitest.File("f", "1"))
	id, id2 := strings.Repeat("a", 64), strings.Repeat("b", 64)
	old := oldDocker(t, func(config string) string {
		return fmt.Sprintf(`[{"Config":%q,"RepoTags":["app:1","app:latest"],"Layers":["%s/layer.tar","%s/layer.tar"]}]`, config, id, id2)
	})
	image := mustOpen(t, Archive{Path: saved(t, "old.tar", old)})
	checkLayers(t, image, layer, layer)
	diff(t, []string{"docker.io/library/app:1", MediaTypeTar}, []string{image.Reference, image.Layers[1].MediaType})
	if image := mustOpen(t, Archive{Reader: bytes.NewReader(old), Ref: "app"}); image.Reference != "docker.io/library/app:latest" {
		t.Errorf("%+v", image)
	}

	// Since 25: a layout beside manifest.json, names as annotations, layers plain.
	for name, l := range map[string]*ocitest.Layer{"plain": ocitest.Plain(layer), "gzip": ocitest.Gzip(layer)} {
		made := ocitest.Image(t, v1.Config{Cmd: []string{"sh"}}, l)
		archive, digest := newDocker(t, made, l, true)
		image := mustOpen(t, Archive{Path: saved(t, name, archive)})
		checkLayers(t, image, l.Blob)
		diff(t, []string{"docker.io/library/app:2", digest}, []string{image.Reference, image.Digest})
		// Without the layout, by manifest.json alone.
		archive, _ = newDocker(t, made, l, false)
		image = mustOpen(t, Archive{Path: saved(t, name, archive)})
		checkLayers(t, image, l.Blob)
		diff(t, []string{"docker.io/library/app:2", image.ConfigDigest, ocitest.DigestOf(l.Blob)}, []string{image.Reference, image.Digest, image.Layers[0].Digest})
	}
}

// newDocker is what docker save writes since version 25.
func newDocker(t testing.TB, image v1.Image, l *ocitest.Layer, layout bool) ([]byte, string) {
	t.Helper()
	manifest, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	blob := func(b []byte) string { return "blobs/sha256/" + strings.TrimPrefix(ocitest.DigestOf(b), "sha256:") }
	digest := ocitest.DigestOf(manifest)
	entries := []ocitest.Entry{
		ocitest.Dir("blobs/"), ocitest.Dir("blobs/sha256/"),
		ocitest.File(blob(manifest), string(manifest)), ocitest.File(blob(config), string(config)), ocitest.File(blob(l.Blob), string(l.Blob)),
	}
	if layout {
		entries = append(entries, ocitest.File("index.json", fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
			{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{"io.containerd.image.name":"docker.io/library/app:2","org.opencontainers.image.ref.name":"2"}}]}`, digest, len(manifest))))
	}
	entries = append(entries, ocitest.File("manifest.json", fmt.Sprintf(`[{"Config":%q,"RepoTags":["app:2"],"Layers":[%q]}]`, blob(config), blob(l.Blob))))
	if layout {
		entries = append(entries, ocitest.File("oci-layout", `{"imageLayoutVersion": "1.0.0"}`))
	}
	return ocitest.Tar(t, entries...), digest
}

func TestAPlainRootFileSystem(t *testing.T) {
	t.Parallel()
	root := ocitest.Tar(t, ocitest.Dir("./"), ocitest.Dir("./bin"), ocitest.File("./bin/sh", "#!"), ocitest.File("./etc/os-release", "ID=x"))
	xz := func(program string) []byte {
		cmd := exec.Command(program, "-c")
		cmd.Stdin = bytes.NewReader(root)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, tc := range map[string]struct{ file, layer []byte }{
		"tar": {root, root}, "tar.gz": {gz(root), gz(root)}, "tar.zst": {zst(root), zst(root)}, "tar.xz": {xz("xz"), root}, "tar.bz2": {xz("bzip2"), root},
	} {
		for _, a := range []Archive{{Path: saved(t, name, tc.file)}, {Reader: bytes.NewReader(tc.file)}} {
			image := mustOpen(t, a)
			checkLayers(t, image, tc.layer)
			diff(t, []string{"", ocitest.DigestOf(tc.layer), ""}, []string{image.Reference, image.Digest, image.ConfigDigest})
		}
	}
}

func TestWhatIsNoArchive(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	truncated := oldDocker(t, func(string) string { return "[]" })
	id := strings.Repeat("a", 64)
	one := func(layers string) []byte {
		return oldDocker(t, func(config string) string {
			return fmt.Sprintf(`[{"Config":%q,"RepoTags":["app:1"],"Layers":[%s]}]`, config, layers)
		})
	}
	indexed := func(index string, more ...ocitest.Entry) []byte {
		return ocitest.Tar(t, append(more, ocitest.File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), ocitest.File("index.json", index))...)
	}
	entry := func(name, digest string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":3,"annotations":{"org.opencontainers.image.ref.name":%q}}`, digest, name)
	}
	for name, tc := range map[string]struct {
		archive Archive
		kind    api.Kind
		says    string
	}{
		"nothing":                       {Archive{Path: filepath.Join(empty, "none")}, api.KindNotFound, "there is no such file"},
		"an empty folder":               {Archive{Path: empty}, api.KindInvalid, "tar -C " + empty},
		"a device":                      {Archive{Path: "/dev/null"}, api.KindInvalid, "neither a file nor a folder"},
		"an empty file":                 {Archive{Path: saved(t, "f", nil)}, api.KindInvalid, "empty"},
		"nothing from a pipe":           {Archive{Reader: strings.NewReader("")}, api.KindInvalid, "empty"},
		"an empty tar":                  {Archive{Path: saved(t, "f", ocitest.Tar(t))}, api.KindInvalid, "empty"},
		"a text":                        {Archive{Path: saved(t, "f", []byte(strings.Repeat("hello\n", 200)))}, api.KindInvalid, "no archive that can be read"},
		"a broken gzip":                 {Archive{Path: saved(t, "f", []byte("\x1f\x8b broken"))}, api.KindInvalid, ""},
		"sources":                       {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("repo/main.go", "x")))}, api.KindInvalid, "begins with repo/main.go"},
		"an archive cut short":          {Archive{Path: saved(t, "f", truncated[:2000])}, api.KindInvalid, ""},
		"no image":                      {Archive{Path: saved(t, "f", truncated)}, api.KindInvalid, "holds no image"},
		"a name it does not have":       {Archive{Path: saved(t, "f", one(`"`+id+`/layer.tar"`)), Ref: "other:1"}, api.KindNotFound, "holds no image other:1, only app:1"},
		"too few layers":                {Archive{Path: saved(t, "f", one(`"`+id+`/layer.tar"`))}, api.KindInvalid, "1 layers, its configuration says 2"},
		"a layer that is not there":     {Archive{Path: saved(t, "f", one(`"`+id+`/layer.tar","../../etc/passwd"`))}, api.KindInvalid, "layer etc/passwd is not in the archive"},
		"an old docker":                 {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("repositories", "{}")))}, api.KindUnsupported, "older than 1.10"},
		"a manifest that is none":       {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("manifest.json", `{"Config":1}`)))}, api.KindInvalid, "manifest.json cannot be read"},
		"a member twice":                {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("manifest.json", "[]"), ocitest.File("./manifest.json", "[]")))}, api.KindInvalid, "twice"},
		"a link that leads in a circle": {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.Symlink("manifest.json", "manifest.json")))}, api.KindInvalid, "leads nowhere"},
		"a manifest of 5 MiB":           {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("manifest.json", strings.Repeat(" ", 5<<20))))}, api.KindInvalid, "more than"},
		"several images, none named":    {Archive{Path: saved(t, "f", indexed(`{"schemaVersion":2,"manifests":[`+entry("a:1", "sha256:"+id)+","+entry("b:1", "sha256:"+strings.Repeat("b", 64))+`]}`))}, api.KindInvalid, "holds 2 images, and none was named: a:1, b:1"},
		"a blob that is not there":      {Archive{Path: saved(t, "f", indexed(`{"schemaVersion":2,"manifests":[`+entry("a:1", "sha256:"+id)+`]}`))}, api.KindInvalid, "manifest sha256:aaa"},
		"a damaged manifest":            {Archive{Path: saved(t, "f", indexed(`{"schemaVersion":2,"manifests":[`+entry("a:1", "sha256:"+id)+`]}`, ocitest.File("blobs/sha256/"+id, "abc")))}, api.KindInvalid, "manifest is damaged: expected"},
		"a digest that leads out":       {Archive{Path: saved(t, "f", indexed(`{"schemaVersion":2,"manifests":[`+entry("a:1", "sha256:../../../x")+`]}`))}, api.KindInvalid, ""},
		"another generation":            {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("oci-layout", `{"imageLayoutVersion":"2.0.0"}`), ocitest.File("index.json", "{}")))}, api.KindUnsupported, "version"},
		"an index without a layout":     {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("index.json", "{}")))}, api.KindInvalid, "oci-layout"},
		"a damaged configuration":       {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("manifest.json", `[{"Config":"`+id+`.json"}]`), ocitest.File(id+".json", "{}")))}, api.KindInvalid, "configuration is damaged"},
		"a huge declared size":          {Archive{Path: saved(t, "f", ocitest.Tar(t, ocitest.File("manifest.json", "[]"))[:512])}, api.KindInvalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := opened(t, tc.archive)
			wantError(t, err, tc.kind, "", tc.says)
		})
	}
}

// A layer that is damaged in the archive, or changed after it was opened, is
// noticed when it is read.
func TestADamagedLayerOfAnArchive(t *testing.T) {
	t.Parallel()
	id, id2 := strings.Repeat("a", 64), strings.Repeat("b", 64)
	path := saved(t, "f", oldDocker(t, func(config string) string {
		return fmt.Sprintf(`[{"Config":%q,"Layers":["%s/layer.tar","%s/layer.tar"]}]`, config, id, id2)
	}))
	image := mustOpen(t, Archive{Path: path})
	root := saved(t, "root.tar", ocitest.Tar(t, ocitest.Dir("bin"), ocitest.File("bin/sh", "1234567890")))
	plain := mustOpen(t, Archive{Path: root})
	for file, old := range map[string]string{path: "1", root: "1234567890"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, append([]byte(old), 0))
		b[at] = 'X'
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []Layer{image.Layers[0], plain.Layers[0]} {
		r, err := l.Open()
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(r)
		if err == nil || !strings.Contains(err.Error(), "expected sha256:") {
			t.Error(err)
		}
		_ = r.Close()
	}
}

// A folder may hold links; none of them leads out of it.
func TestALayoutAsAFolderIsNotLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := saved(t, "index.json", []byte(`{"schemaVersion":2,"manifests":[]}`))
	if err := os.Symlink(secret, filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := opened(t, Archive{Path: dir})
	if err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("the link was followed: %v", err)
	}
	dir = t.TempDir()
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "index.json")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	_, err = opened(t, Archive{Path: dir})
	wantError(t, err, api.KindInvalid, "", "index.json is no file")
}

func FuzzArchive(f *testing.F) {
	layer := ocitest.Plain(ocitest.Tar(f, ocitest.File("f", "1")))
	archive, _ := newDocker(f, ocitest.Image(f, v1.Config{}, layer), layer, true)
	f.Add(archive)
	f.Add(gz(archive))
	archive, _ = newDocker(f, ocitest.Image(f, v1.Config{}, layer), layer, false)
	f.Add(archive)
	f.Add(ocitest.Tar(f, ocitest.Dir("bin"), ocitest.Symlink("manifest.json", "x"), ocitest.File("x", "[]")))
	f.Add(ocitest.Tar(f, ocitest.Symlink("manifest.json", "x"), ocitest.Entry{Header: tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "manifest.json"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		image, err := opened(t, Archive{Path: path})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "cannot import ") {
				t.Error(err)
			}
			return
		}
		for _, l := range image.Layers {
			r, err := l.Open()
			if err != nil {
				continue
			}
			n, err := io.Copy(io.Discard, r)
			if err == nil && n != l.Size {
				t.Errorf("%d bytes of %d", n, l.Size)
			}
			_ = r.Close()
		}
	})
}

// An index and manifests come from registries and archives alike.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:`+strings.Repeat("a", 64)+`","size":2},"layers":[]}`), "")
	f.Add([]byte(`{"manifests":[{"digest":"sha256:`+strings.Repeat("a", 64)+`","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}`), "application/vnd.oci.image.index.v1+json")
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "")
	f.Add([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:x"]},"config":{"Env":["A\u0000=1"]}}`), "config")
	f.Fuzz(func(t *testing.T, b []byte, mediaType string) {
		doc, err := parseDocument(b, mediaType)
		if err == nil && (doc.manifest == nil) == (doc.index == nil) {
			t.Errorf("neither or both: %+v", doc)
		}
		want := v1.Platform{OS: "linux", Architecture: "amd64"}
		if doc.index != nil {
			_, _ = choose(doc.index, want)
			for _, n := range layoutImages(doc.index, want) {
				_ = n.label() + n.reference("a:1")
			}
		}
		if doc.manifest != nil && len(doc.manifest.Layers) > maxLayers {
			t.Error("too many layers")
		}
		if c, err := parseConfig(b); err == nil {
			image := &Image{}
			if image.setConfig(c, want) == nil && image.setDiffIDs(c) == nil && len(c.RootFS.DiffIDs) > 0 {
				t.Error("more layers than there are")
			}
		}
		if images, err := parseDockerManifest(b); err == nil {
			for _, i := range images {
				for _, l := range append(i.Layers, i.Config) {
					if strings.HasPrefix(l, "/") || strings.HasPrefix(l, "../") || l == ".." {
						t.Errorf("%q leads out", l)
					}
				}
			}
		}
		if file, err := parseDockerConfig(b); err == nil && file == nil {
			t.Error("no configuration, no error")
		}
	})
}

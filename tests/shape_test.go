package tests

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/image"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// file is a member of an image that a test makes: a folder where the name ends
// with a slash, a link where link is set.
type file struct {
	name, data, link string
	mode             int64
	uid              int
}

// image puts an image of these files into the root, whose daemon does not run
// yet, with the kernel of the default image.
func (h *host) image(name string, config api.ImageConfig, fill func(*tar.Writer) error) layout.ImageDir {
	h.t.Helper()
	ctx := context.Background()
	staged := filepath.Join(h.root, "state", name+".ext4")
	if err := ext4.Write(staged, ext4.UUID(name), fill); err != nil {
		h.t.Fatal(err)
	}
	f, err := os.Open(staged)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		h.t.Fatal(err)
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	l := layout.Layout{State: filepath.Join(h.root, "state")}
	dir := l.Image(digest[:16])
	if err := os.MkdirAll(dir.Dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(staged, dir.RootFS()); err != nil {
		h.t.Fatal(err)
	}
	m := image.Manifest{Version: 1, Digest: "sha256:" + digest, SizeBytes: size, Config: config, Source: map[string]string{"made": "by a test"}}
	if err := pull.WriteManifest(dir.Manifest(), m); err != nil {
		h.t.Fatal(err)
	}
	db, err := store.Open(ctx, l.Database(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	all, err := db.Images(ctx)
	if err != nil || len(all) == 0 {
		h.t.Fatalf("no image to take the kernel of: %v", err)
	}
	if err := db.PublishImage(ctx, store.Image{
		ID: digest[:16], Name: name, Digest: m.Digest, Kind: "debian", Reference: name, Kernel: all[0].Kernel,
		SizeBytes: size, Config: config, Source: m.Source, CreatedAt: time.Now().UTC(),
	}, nil); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// files makes the filler of an image out of a list.
func files(list ...file) func(*tar.Writer) error {
	return func(tw *tar.Writer) error {
		for _, f := range list {
			head := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: f.mode, Size: int64(len(f.data)), Uid: f.uid, Gid: f.uid, ModTime: time.Unix(1e9, 0)}
			switch {
			case f.link != "":
				head.Typeflag, head.Linkname = tar.TypeSymlink, f.link
			case strings.HasSuffix(f.name, "/"):
				head.Typeflag = tar.TypeDir
			}
			if head.Mode == 0 {
				head.Mode = 0o755
			}
			if err := tw.WriteHeader(ext4.Member(head, head.Name, head.Linkname)); err != nil {
				return err
			}
			if _, err := io.WriteString(tw, f.data); err != nil {
				return err
			}
		}
		return nil
	}
}

// probe builds the program of testdata/probe, static.
func probe(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, filepath.Join("testdata", "probe", "main.go")) // a file, not a package: there may be no module here
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the probe: %v: %s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// seen is what the probe says.
type seen struct {
	Argv   []string          `json:"argv"`
	Dir    string            `json:"dir"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Groups []int             `json:"groups"`
	Env    []string          `json:"env"`
	Modes  map[string]string `json:"modes"`
	Files  map[string]string `json:"files"`
}

func (s seen) has(kv ...string) (missing []string) {
	for _, want := range kv {
		if !slices.Contains(s.Env, want) {
			missing = append(missing, want)
		}
	}
	return missing
}

func (h *host) see(r result) seen {
	h.t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || r.code != 0 {
		h.t.Fatalf("%v: %v", err, r)
	}
	return s
}

// debian unpacks one package of the Debian archive.
func debian(t *testing.T, pkg string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("apt-get", "download", "-q", pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot download %s: %v: %s", pkg, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v, %v", debs, err)
	}
	tree := filepath.Join(dir, "tree")
	if out, err := exec.Command("dpkg-deb", "-x", debs[0], tree).CombinedOutput(); err != nil {
		t.Fatalf("cannot unpack %s: %v: %s", pkg, err, out)
	}
	return tree
}

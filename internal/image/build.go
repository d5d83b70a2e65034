package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layout"
)

// Manifest says what an image's folder holds. It is written last, so a folder
// with a manifest is whole.
type Manifest struct {
	Version   int               `json:"manifest_version"`
	Digest    string            `json:"digest"` // of rootfs.ext4
	SizeBytes int64             `json:"size_bytes"`
	Config    api.ImageConfig   `json:"config"`
	Source    map[string]string `json:"source"`
	Packages  []string          `json:"packages"` // name=version
}

// manifestVersion is the generation of Manifest.
const manifestVersion = 1

// BuildOptions are the host's part in a build.
type BuildOptions struct {
	Mirrors    debian.Mirrors
	AptOptions []string
	TempDir    string // see debian.Options
	Now        time.Time
	Report     func(debian.Progress)
}

// Build makes the files of an image, rootfs.ext4 and manifest.json, in dir,
// which must exist and be empty. The file system is written while the archive
// of packages streams by. On an error what it made is left for the caller, who
// owns dir, to remove.
func Build(ctx context.Context, dir layout.ImageDir, recipe Recipe, opt BuildOptions) (Manifest, error) {
	if err := debian.CheckSpace("build image",
		debian.Need{Dir: opt.TempDir, Bytes: recipe.TreeBytes}, debian.Need{Dir: dir.Dir, Bytes: recipe.ImageBytes}); err != nil {
		return Manifest{}, err
	}
	sources := opt.Mirrors.Sources(recipe.Suite)
	files := append([]File{{"etc/apt/sources.list.d/debian.sources", sources.Deb822()}}, recipe.Files...)
	rw := newRewriter(files, leftovers[:], opt.Now)
	var reporting sync.Mutex // mmdebstrap's words and the archive come on two goroutines
	report := func(p debian.Progress) {
		if opt.Report != nil {
			reporting.Lock()
			defer reporting.Unlock()
			opt.Report(p)
		}
	}
	rw.progress = func(n int64) {
		report(debian.Progress{Stage: "writing the file system", Done: n, Unit: "bytes"})
	}
	err := debian.Bootstrap(ctx, debian.Options{
		Suite: recipe.Suite, Variant: recipe.Variant, Packages: recipe.Packages, Sources: sources,
		AptOptions: opt.AptOptions, TempDir: opt.TempDir, Report: report,
	}, func(r io.Reader) error {
		return ext4.Write(dir.RootFS(), ext4.UUID(dir.Dir), func(tw *tar.Writer) error {
			return rw.copy(tar.NewReader(r), tw)
		})
	})
	if err != nil {
		return Manifest{}, noSpace(err, dir.Dir)
	}
	m := Manifest{
		Version: manifestVersion, Config: recipe.Config, Packages: sortedPackages(rw.packages),
		Source: map[string]string{"suite": recipe.Suite, "mirror": opt.Mirrors.Main},
	}
	if opt.Mirrors.Security != "" {
		m.Source["security_mirror"] = opt.Mirrors.Security
	}
	if v, ok := rw.packages["base-files"]; ok {
		m.Source["base-files"] = v
	}
	if m.Digest, m.SizeBytes, err = digest(ctx, dir.RootFS()); err != nil {
		return Manifest{}, err
	}
	if err := writeManifest(dir, m); err != nil {
		return Manifest{}, noSpace(err, dir.Dir)
	}
	return m, nil
}

// digest reads a file and gives its digest and size.
func digest(ctx context.Context, path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	var size int64
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		_, _ = sum.Write(buf[:n])
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return "sha256:" + hex.EncodeToString(sum.Sum(nil)), size, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
	return "", 0, api.Errorf(api.KindCancelled, "cannot build image: %w", context.Cause(ctx))
}

func writeManifest(dir layout.ImageDir, m Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(dir.Manifest(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// maxManifest bounds a manifest, in bytes.
const maxManifest = 4 << 20

// ReadManifest reads the manifest in an image's folder. A missing one is an
// error that os.IsNotExist knows; one that cannot be understood is of kind
// internal and names the file.
func ReadManifest(dir layout.ImageDir) (Manifest, error) {
	f, err := os.Open(dir.Manifest())
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("cannot read %s: %w", dir.Manifest(), err)
	}
	m, err := parseManifest(b)
	if err != nil {
		return Manifest{}, api.Errorf(api.KindInternal, "cannot read image manifest %s: %w", dir.Manifest(), err)
	}
	return m, nil
}

func parseManifest(b []byte) (Manifest, error) {
	if len(b) > maxManifest {
		return Manifest{}, fmt.Errorf("it is larger than %d bytes", maxManifest)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("it is corrupt: %w", err)
	}
	switch {
	case m.Version < 1:
		return Manifest{}, errors.New("it is corrupt: no version")
	case m.Version > manifestVersion:
		return Manifest{}, fmt.Errorf("it was written by a newer banger (version %d)", m.Version)
	case m.Digest == "" || m.SizeBytes <= 0:
		return Manifest{}, errors.New("it is corrupt: no digest or size")
	}
	if m.Source == nil {
		m.Source = map[string]string{}
	}
	return m, nil
}

// noSpace gives an error about a full disk its kind; others stay.
func noSpace(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return api.Errorf(api.KindNoSpace, "cannot write image to %s: %w", dir, err).WithHint("df -h %s", filepath.Dir(dir))
	}
	return err
}

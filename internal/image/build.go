package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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
	"github.com/bangervm/banger/internal/pull"
)

// Manifest says what an image's folder holds. It is written last, so a folder
// with a manifest is whole.
type Manifest struct {
	Version   int               `json:"manifest_version"`
	Digest    string            `json:"digest"` // of rootfs.ext4
	SizeBytes int64             `json:"size_bytes"`
	Config    api.ImageConfig   `json:"config"`
	Source    map[string]string `json:"source"`
	Packages  []string          `json:"packages"`        // name=version
	Blobs     []string          `json:"blobs,omitempty"` // digests of what it was flattened from
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
	if m.Digest, m.SizeBytes, err = digestFile(ctx, dir.RootFS(), nil); err != nil {
		return Manifest{}, err
	}
	if err := pull.WriteManifest(dir.Manifest(), m); err != nil {
		return Manifest{}, noSpace(err, dir.Dir)
	}
	return m, nil
}

// digestFile reads a file and gives its digest and size; report, which may be
// nil, is told how many bytes are read.
func digestFile(ctx context.Context, path string, report func(done int64)) (string, int64, error) {
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
		if report != nil {
			report(size)
		}
	}
	return "", 0, api.Errorf(api.KindCancelled, "cannot read %s: %w", path, context.Cause(ctx))
}

// digestText gives the digest of a text.
func digestText(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ReadManifest reads the manifest in an image's folder. A missing one is an
// error that os.IsNotExist knows; one that cannot be understood is of kind
// internal and names the file.
func ReadManifest(dir layout.ImageDir) (Manifest, error) {
	return pull.ReadManifest("image", dir.Manifest(), parseManifest)
}

func parseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := pull.DecodeManifest(b, &m, &m.Version, manifestVersion); err != nil {
		return Manifest{}, err
	}
	if m.Digest == "" || m.SizeBytes <= 0 {
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

// needing adds to an error of kind no-space what there was no room for.
func needing(err error, what string) error {
	return api.Errorf(api.KindNoSpace, "%w; %s", err, what).WithHint("%s", api.AsError(err).Hint)
}

package kernel

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
)

// Manifest says what a kernel's folder holds. It is written last, so a folder
// with a manifest is whole.
type Manifest struct {
	Version     int               `json:"manifest_version"`
	Release     string            `json:"release"` // as uname -r says
	Arch        string            `json:"arch"`
	Digest      string            `json:"digest"`       // of vmlinux
	SizeBytes   int64             `json:"size_bytes"`   // of all files, as stored
	BootModules []string          `json:"boot_modules"` // each list in the order to load it
	Modules     int               `json:"modules"`      // in modules.ext4
	Source      map[string]string `json:"source"`
	// Warnings say what could not be told of the kernel, or is missing in it and
	// can be missed.
	Warnings []string `json:"warnings,omitempty"`
	// Content is a digest of all that was put in, whatever became of it.
	Content string `json:"content,omitempty"`
	// Transports of the guest link that this kernel has the drivers of; a
	// manifest from before there were several names none, which means serial.
	Transports []guestapi.Transport `json:"transports,omitempty"`
}

// manifestVersion is the generation of Manifest.
const manifestVersion = 1

// Recipe is a kernel as a Debian package.
type Recipe struct {
	Suite   string
	Package string
	// TreeBytes is about what the unpacked package with its downloads takes
	// while it is built, KernelBytes what the files made of it take.
	TreeBytes, KernelBytes int64
}

// BuildOptions are the host's part in a build.
type BuildOptions struct {
	Mirrors    debian.Mirrors
	AptOptions []string
	TempDir    string // see debian.Options
	Report     func(debian.Progress)
}

// Build fetches the package and makes the files of a kernel in dir, which must
// exist and be empty: vmlinux, modules.ext4, boot.cpio and manifest.json. On an
// error what it made is left for the caller, who owns dir, to remove.
func Build(ctx context.Context, dir layout.KernelDir, recipe Recipe, opt BuildOptions) (Manifest, error) {
	if err := debian.CheckSpace("build kernel",
		debian.Need{Dir: opt.TempDir, Bytes: recipe.TreeBytes}, debian.Need{Dir: dir.Dir, Bytes: recipe.KernelBytes}); err != nil {
		return Manifest{}, err
	}
	var m Manifest
	sources := opt.Mirrors.Sources(recipe.Suite)
	err := debian.Bootstrap(ctx, debian.Options{
		Suite: recipe.Suite, Variant: "extract", Packages: []string{recipe.Package}, Sources: sources,
		AptOptions: opt.AptOptions, TempDir: opt.TempDir, Report: opt.Report,
	}, func(r io.Reader) (err error) {
		m, err = Unpack(ctx, r, dir)
		return err
	})
	if err != nil {
		return Manifest{}, noSpace(err, dir.Dir)
	}
	m.Source["package"] = recipe.Package
	m.Source["suite"] = recipe.Suite
	m.Source["mirror"] = opt.Mirrors.Main
	if err := pull.WriteManifest(dir.Manifest(), m); err != nil {
		return Manifest{}, noSpace(err, dir.Dir)
	}
	return m, nil
}

// ReadManifest reads the manifest in a kernel's folder. A missing one is an
// error that os.IsNotExist knows; one that cannot be understood is of kind
// internal and names the file.
func ReadManifest(dir layout.KernelDir) (Manifest, error) {
	return pull.ReadManifest("kernel", dir.Manifest(), parseManifest)
}

func parseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := pull.DecodeManifest(b, &m, &m.Version, manifestVersion); err != nil {
		return Manifest{}, err
	}
	if m.Release == "" || m.Digest == "" || filepath.Base(m.Release) != m.Release {
		return Manifest{}, errors.New("it is corrupt: no release or digest")
	}
	if m.Source == nil {
		m.Source = map[string]string{}
	}
	return m, nil
}

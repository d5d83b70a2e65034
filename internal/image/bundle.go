package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/bundle"
	"github.com/bangervm/banger/internal/layout"
)

// KindBundle is the kind of an image that came in a bundle.
const KindBundle = "bundle"

// What a bundle of an image may hold; docs/reference/bundle-format.md.
const (
	memberRoot   = "rootfs.ext4"
	memberSeed   = "work-seed.ext4"
	kernelFolder = "kernel"
	kernelGroup  = "kernel"
)

// bundleRules are the members of a bundle, in their order. The names are those
// the files have in the folder of the image, and the kernel's below it.
func bundleRules() []bundle.Rule {
	rules := []bundle.Rule{
		{Name: memberRoot, MaxBytes: 64 << 30},
		{Name: memberSeed, Group: memberSeed, MaxBytes: 16 << 30},
	}
	limits := []int64{1 << 30, 8 << 30, 1 << 30, 4 << 20}
	for i, path := range kernelFiles(layout.KernelDir{Dir: kernelFolder}) {
		rules = append(rules, bundle.Rule{Name: filepath.ToSlash(path), Group: kernelGroup, MaxBytes: limits[i]})
	}
	return rules
}

func kernelFiles(d layout.KernelDir) []string {
	return []string{d.VMLinux(), d.Modules(), d.BootModules(), d.Manifest()}
}

// bundled is the description of an image in its bundle.
type bundled struct {
	Name     string            `json:"name"` // it had where it was bundled; who pulls it names it
	Arch     string            `json:"arch"`
	Kernel   string            `json:"kernel"` // name of the kernel it boots
	Config   api.ImageConfig   `json:"config"`
	Source   map[string]string `json:"source"`             // what the image was made from
	Packages []string          `json:"packages,omitempty"` // name=version
}

// Bounds of a description that comes from outside.
const (
	maxDescribed = 4096  // texts in a list
	maxDescribe  = 32768 // bytes of a text
)

// parseBundled reads a description, which must be one this host can use.
func parseBundled(b []byte) (bundled, error) {
	var d bundled
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("its description is corrupt: %w", err)
	}
	texts := slices.Concat(d.Config.Env, d.Config.Entrypoint, d.Config.Cmd, d.Packages, []string{d.Config.User, d.Config.Workdir, d.Name})
	for k, v := range d.Source {
		texts = append(texts, k, v)
	}
	if len(texts) > maxDescribed {
		return d, fmt.Errorf("its description has more than %d texts", maxDescribed)
	}
	for _, t := range texts {
		if len(t) > maxDescribe || strings.ContainsRune(t, 0) {
			return d, errors.New("its description has a text that is too long, or that holds a zero byte")
		}
	}
	if d.Kernel != "" {
		if err := checkName(d.Kernel); err != nil {
			return d, fmt.Errorf("the kernel %.80q it names is no name", d.Kernel)
		}
	}
	if d.Arch != runtime.GOARCH {
		return d, api.Errorf(api.KindUnsupported, "cannot use bundle: it is for %.40q, and this host is %s", d.Arch, runtime.GOARCH)
	}
	return d, nil
}

// digestOf names the content of an image from a bundle: whatever of it a VM can
// see. It is worked out, never taken from the bundle's word, so that nobody can
// put another image in the place of one that is known.
func (d bundled) digestOf(m bundle.Manifest) (string, error) {
	sum := sha256.New()
	_, _ = io.WriteString(sum, "banger image from a bundle, 1\n")
	for _, f := range m.Members {
		if f.Name == memberRoot || f.Name == memberSeed {
			_, _ = fmt.Fprintf(sum, "%s %s\n", f.Name, f.Digest)
		}
	}
	config, err := json.Marshal(d.Config)
	if err != nil {
		return "", err
	}
	sum.Write(config)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// Kernels is what bundles need of the kernels; the kernel room has it.
type Kernels interface {
	// Files is the folder of the kernel with the exact name. It is of kind
	// not-found when there is none.
	Files(ctx context.Context, name string) (layout.KernelDir, error)
	// Install takes the files of a kernel over, unless a kernel of the same content
	// is here, and gives the name of the kernel: the wanted one, where it is free
	// or means the same content.
	Install(ctx context.Context, dir layout.KernelDir, name string) (string, error)
}

// unpacked is a bundle in the folder of an image to be.
type unpacked struct {
	bundled
	bundle.Info
	digest string
	kernel string // name that its kernel got here
}

// unpack reads a bundle into dir and hands its kernel, if it has one, over. digest
// is what was verified of the bundle, which another may write to meanwhile; empty
// where nothing was.
func unpack(ctx context.Context, r io.Reader, digest string, dir layout.ImageDir, kernels Kernels, report func(stage string, done int64)) (unpacked, error) {
	var u unpacked
	var err error
	u.Info, err = bundle.Read(ctx, r, dir.Dir, bundle.Options{
		Kind: "image", Rules: bundleRules(),
		Report: func(done int64) { report("unpacking", done) },
		Accept: func(m bundle.Manifest) (err error) {
			if u.bundled, err = parseBundled(m.Content); err != nil {
				return api.Errorf(kindOr(err, api.KindInvalid), "cannot read bundle: %w", err)
			}
			if u.digest, err = u.digestOf(m); err != nil {
				return err
			}
			return checkRoom(dir.Dir, m.DataBytes())
		},
	})
	if err != nil {
		return u, err
	}
	if digest != "" && u.Digest != digest {
		return u, api.Errorf(api.KindBadState, "it changed while it was read")
	}
	from := layout.KernelDir{Dir: filepath.Join(dir.Dir, kernelFolder)}
	if u.Manifest.Has(kernelFiles(layout.KernelDir{Dir: kernelFolder})[0]) {
		report("installing the kernel", 0)
		if u.kernel, err = kernels.Install(ctx, from, first(u.Kernel, DefaultKernel)); err != nil {
			return u, err
		}
		if err := os.RemoveAll(from.Dir); err != nil {
			return u, err
		}
	}
	return u, nil
}

func kindOr(err error, other api.Kind) api.Kind {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known.Kind
	case errors.Is(err, syscall.EIO): // the disk is to blame, not the bundle
		return api.KindInternal
	}
	return other
}

// manifest is that of the image in the unpacked bundle.
func (u unpacked) manifest() Manifest {
	source := map[string]string{}
	maps.Copy(source, u.Source)
	delete(source, "kernel") // ours to say, of the name that was checked
	source["bundle"] = u.Digest
	if k := first(u.kernel, u.Kernel); k != "" {
		source["kernel"] = k
	}
	return Manifest{
		Version: manifestVersion, Digest: u.digest, SizeBytes: u.Manifest.Members[0].SizeBytes, Config: u.Config, Source: source, Packages: u.Packages,
	}
}

// openBundle opens a bundle that is a file, without waiting for a fifo's other
// end.
func openBundle(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, api.Errorf(fileKind(err), "cannot read bundle: %w", err).WithHint("ls -l %s", path)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = api.Errorf(api.KindInvalid, "cannot read bundle: %s is not a regular file", path).WithHint("ls -ld %s", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

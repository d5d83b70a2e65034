package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/bundle"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/signature"
	"github.com/bangervm/banger/internal/store"
)

// maxBundle bounds a bundle that is downloaded, in bytes.
const maxBundle = 64 << 30

// Downloads gets files from web servers.
type Downloads interface {
	File(ctx context.Context, at, path string, limit int64, report func(done, total int64)) error
	Bytes(ctx context.Context, at, tag string, limit int64) (body []byte, newTag string, err error)
}

// Bundles makes images from bundles; it is the Source of FromBundle.
type Bundles struct {
	Downloads Downloads
	Kernels   Kernels
	Now       func() time.Time
}

// bundleFile says whether a reference means a bundle: a path or a URL, as
// opposed to a name or a registry's reference.
func bundleFile(ref string) bool {
	for _, p := range []string{"/", "./", "../", "file://", "http://", "https://"} {
		if strings.HasPrefix(ref, p) {
			return true
		}
	}
	return false
}

// bundleJob is the job of pulling the bundle that a reference means. Its image
// is named after the file.
func bundleJob(ref string) (pull.Job, error) {
	at, base := ref, path.Base(ref)
	switch u, err := url.Parse(ref); {
	case filepath.IsAbs(ref):
		at = filepath.Clean(ref)
	case err != nil:
		return pull.Job{}, api.Errorf(api.KindInvalid, "cannot pull bundle %q: it is no address", clip(ref))
	case u.Scheme == "file":
		if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
			return pull.Job{}, api.Errorf(api.KindInvalid, "cannot pull bundle %q: a file address is file:///PATH", clip(ref))
		}
		at = filepath.Clean(u.Path)
		base = path.Base(at)
	case u.Scheme == "":
		return pull.Job{}, api.Errorf(api.KindInvalid, "cannot pull bundle %q: it is not an absolute path", clip(ref))
	default:
		base = path.Base(u.Path)
	}
	name := strings.ToLower(base)
	for _, end := range []string{".zst", ".tar"} {
		name = strings.TrimSuffix(name, end)
	}
	if checkName(name) != nil {
		name = ""
	}
	return pull.Job{Name: name, Source: pull.Source{Kind: FromBundle, Ref: at}}, nil
}

// shown is a location without a password in it.
func shown(at string) string {
	if u, err := url.Parse(at); err == nil && u.User != nil {
		return u.Redacted()
	}
	return at
}

// Plan looks at a bundle: into one that is a file, at what is known of any other.
func (b Bundles) Plan(ctx context.Context, from pull.Source, _ pull.Report) (pull.Plan[store.Image], error) {
	job := bundleWork{Bundles: b, at: from.Ref, digest: from.With[withDigest]}
	if text := from.With[withKey]; text != "" {
		key, err := signature.ParseKey(text)
		if err != nil {
			return pull.Plan[store.Image]{}, api.Errorf(api.KindInvalid, "cannot trust %s: %w", shown(job.at), err)
		}
		job.key = &key
	}
	job.size, _ = strconv.ParseInt(from.With[withSize], 10, 64) // what the catalog says; 0 is not known
	plan := pull.Plan[store.Image]{
		Describe: func(i store.Image) store.Image {
			// The name its kernel has here is known once it was made.
			i.Reference, i.Kernel = shown(job.at), i.Source["kernel"]
			return i
		},
	}
	if job.digest != "" {
		plan.Key = "bundle " + job.digest
		plan.Same = func(i store.Image) bool { return i.Kind == KindBundle && i.Source["bundle"] == job.digest }
	}
	if !filepath.IsAbs(job.at) {
		if plan.Key == "" {
			plan.Key = "bundle " + job.at
		}
		plan.Make = job.download
		return plan, nil
	}
	f, size, err := openBundle(job.at)
	if err != nil {
		return plan, err
	}
	m, err := bundle.Peek(ctx, f, bundle.Options{Kind: "image", Rules: bundleRules()})
	var d bundled
	if err == nil {
		d, err = parseBundled(m.Content)
	}
	digest := ""
	if err == nil {
		digest, err = d.digestOf(m)
	}
	if err != nil {
		_ = f.Close()
		return plan, api.Errorf(kindOr(err, api.KindInvalid), "cannot pull %s: %w", job.at, err)
	}
	if job.digest == "" && job.key == nil && !b.lacks(ctx, m, d) {
		// What its manifest says is enough to know that nothing is to be done.
		plan.ID, plan.Key = idOf(digest), "bundle of "+digest
		plan.Confirm = func(ctx context.Context, report pull.Report) error {
			return job.confirm(ctx, f, size, digest, report)
		}
	}
	plan.Close = func() { _ = f.Close() }
	plan.Make = func(ctx context.Context, dir, _ string, report pull.Report) (store.Image, error) {
		return job.make(ctx, f, size, layout.ImageDir{Dir: dir}, report)
	}
	return plan, nil
}

// confirm reads a bundle whose image is here to its end, and keeps nothing of it:
// one that is cut short is no success because its beginning is known.
func (b bundleWork) confirm(ctx context.Context, f *os.File, size int64, digest string, report pull.Report) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	rules := bundleRules()
	for i := range rules {
		rules[i].Discard = true
	}
	_, err := bundle.Read(ctx, f, "", bundle.Options{
		Kind: "image", Rules: rules,
		Report: func(done int64) { report("verifying", api.Progress{Done: done, Total: size, Unit: "bytes"}) },
		Accept: func(m bundle.Manifest) error {
			d, err := parseBundled(m.Content)
			if err != nil {
				return err
			}
			if got, err := d.digestOf(m); err != nil || got != digest {
				return api.Errorf(api.KindBadState, "it changed while it was read")
			}
			return nil
		},
	})
	if err != nil {
		return api.Errorf(kindOr(err, api.KindInvalid), "cannot pull %s: %w", b.at, err)
	}
	return nil
}

// lacks says whether a bundle brings a kernel that may be missing here.
func (b Bundles) lacks(ctx context.Context, m bundle.Manifest, d bundled) bool {
	if !m.Has(kernelFiles(layout.KernelDir{Dir: kernelFolder})[0]) {
		return false
	}
	_, err := b.Kernels.Files(ctx, first(d.Kernel, DefaultKernel))
	return err != nil
}

// bundleWork is one bundle to be made an image.
type bundleWork struct {
	Bundles
	at     string // a path or a URL
	digest string // that it must have; empty is any
	key    *signature.Key
	size   int64
}

// download gets the bundle, beside the files of the image, then makes the image.
func (b bundleWork) download(ctx context.Context, dir, _ string, report pull.Report) (store.Image, error) {
	if b.size > 0 {
		if err := checkRoom(dir, b.size); err != nil {
			return store.Image{}, err
		}
	}
	temp := filepath.Join(dir, "bundle.tar.zst")
	err := b.Downloads.File(ctx, b.at, temp, maxBundle, func(done, total int64) {
		report("downloading "+path.Base(shown(b.at)), api.Progress{Done: done, Total: total, Unit: "bytes"})
	})
	if err != nil {
		return store.Image{}, err
	}
	f, size, err := openBundle(temp)
	if err != nil {
		return store.Image{}, err
	}
	defer func() { _ = f.Close() }()
	// Nobody needs the name any more; the room is free once it is closed.
	if err := os.Remove(temp); err != nil {
		return store.Image{}, err
	}
	return b.make(ctx, f, size, layout.ImageDir{Dir: dir}, report)
}

// make checks that the bundle may be trusted, then makes the image.
func (b bundleWork) make(ctx context.Context, f *os.File, size int64, dir layout.ImageDir, report pull.Report) (store.Image, error) {
	digest, err := b.verify(ctx, f, size, report)
	if err != nil {
		return store.Image{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return store.Image{}, err
	}
	u, err := unpack(ctx, f, digest, dir, b.Kernels, func(stage string, done int64) {
		p := api.Progress{}
		if done > 0 {
			p = api.Progress{Done: done, Total: size, Unit: "bytes"}
		}
		report(stage, p)
	})
	if err != nil {
		e := api.AsError(err)
		return store.Image{}, api.Errorf(e.Kind, "cannot pull %s: %w", shown(b.at), err).WithHint("%s", e.Hint)
	}
	m := u.manifest()
	if err := pull.WriteManifest(dir.Manifest(), m); err != nil {
		return store.Image{}, noSpace(err, dir.Dir)
	}
	return m.record(KindBundle, b.Now()), nil
}

// verify reads the whole bundle to see that it is the one named, and that it is
// signed by who must have signed it. It gives the digest that was seen; nothing
// where nothing is demanded.
func (b bundleWork) verify(ctx context.Context, f *os.File, size int64, report pull.Report) (string, error) {
	if b.digest == "" && b.key == nil {
		return "", nil
	}
	var text []byte
	if b.key != nil {
		var err error
		if text, err = b.signature(ctx); err != nil {
			return "", err
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	sum := sha256.New()
	r := io.TeeReader(&progressReader{ctx: ctx, r: f, report: func(done int64) {
		report("verifying", api.Progress{Done: done, Total: size, Unit: "bytes"})
	}}, sum)
	if b.key != nil {
		if err := signature.Verify(shown(b.at), r, text, *b.key); err != nil {
			return "", err
		}
	} else if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if b.digest != "" && digest != b.digest {
		return "", api.Errorf(api.KindDenied, "cannot trust %s: its digest is %s, and its catalog says %s", shown(b.at), digest, b.digest)
	}
	return digest, nil
}

// signature gets the signature that lies beside the bundle.
func (b bundleWork) signature(ctx context.Context) ([]byte, error) {
	if filepath.IsAbs(b.at) {
		f, _, err := openBundle(b.at + signature.Suffix)
		if errors.Is(err, os.ErrNotExist) {
			return nil, signature.Unsigned(b.at, *b.key)
		}
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		text, err := io.ReadAll(io.LimitReader(f, signature.MaxBytes+1)) // one byte too many is refused
		if err != nil {
			return nil, api.Errorf(fileKind(err), "cannot read signature: %w", err)
		}
		return text, nil
	}
	u, err := url.Parse(b.at)
	if err != nil {
		return nil, err
	}
	u.Path, u.RawPath = u.Path+signature.Suffix, ""
	text, _, err := b.Downloads.Bytes(ctx, u.String(), "", signature.MaxBytes)
	if api.KindOf(err) == api.KindNotFound {
		return nil, signature.Unsigned(shown(b.at), *b.key)
	}
	return text, err
}

// checkRoom looks whether dir has room for bytes more.
func checkRoom(dir string, bytes int64) error {
	return debian.CheckSpace("unpack bundle", debian.Need{Dir: dir, Bytes: bytes})
}

// progressReader tells of bytes read, and ends with its context.
type progressReader struct {
	ctx    context.Context
	r      io.Reader
	done   int64
	report func(done int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, api.Errorf(api.KindCancelled, "cannot pull image: %w", context.Cause(p.ctx))
	}
	n, err := p.r.Read(b)
	p.done += int64(n)
	p.report(p.done)
	return n, err
}

package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/compression"
)

// Archive is an image in files: what docker save writes, an OCI layout as a
// folder or a tar, or a root file system as a tar. Tars may be compressed with
// gzip, zstd, xz or bzip2.
type Archive struct {
	// Path is a file or a folder. What it holds must stay as it is while the
	// image's layers are read; a change is noticed by the digests.
	Path string
	// Reader is read to its end instead, where there is no Path.
	Reader io.Reader
	// Spool is an existing folder of the caller's for what has to be kept beside
	// the archive: what a Reader gave, what had to be uncompressed. The caller
	// removes it when it is done with the image.
	Spool string
	// Ref chooses one of several images, by name or digest.
	Ref string
	// Platform is what the image must be for; empty: this host's.
	Platform string
	// Report is told how many bytes have been read, of how many; 0 where that is
	// not known. It may be nil.
	Report Report
}

// OpenArchive finds the image in an archive. Its layers are read out of the
// archive, or out of Spool, whenever they are opened; nothing is unpacked.
func OpenArchive(ctx context.Context, a Archive) (*Image, error) {
	what := "import " + a.Path
	if a.Path == "" {
		what = "import the archive"
	}
	if a.Platform == "" {
		a.Platform = hostPlatform()
	}
	platform, err := v1.ParsePlatform(a.Platform)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "cannot %s: %w", what, err)
	}
	image, err := openArchive(ctx, a, *platform)
	if ctx.Err() != nil {
		return nil, api.Errorf(api.KindCancelled, "cannot %s: %w", what, context.Cause(ctx))
	}
	if err != nil {
		return nil, archiveError(what, err)
	}
	return image, nil
}

func archiveError(what string, err error) error {
	said := contentError(what, err)
	var ready *api.Error
	switch {
	case errors.As(err, &ready):
	case errors.Is(err, os.ErrPermission):
		said.Kind = api.KindDenied
	case isFull(err):
		said.Kind = api.KindNoSpace
	}
	return said
}

func openArchive(ctx context.Context, a Archive, platform v1.Platform) (*Image, error) {
	if a.Path != "" {
		if fi, err := os.Stat(a.Path); errors.Is(err, os.ErrNotExist) {
			return nil, api.Errorf(api.KindNotFound, "there is no such file or folder")
		} else if err != nil {
			return nil, err
		} else if fi.IsDir() {
			return imageIn(folder(a.Path), a.Ref, platform)
		} else if !fi.Mode().IsRegular() {
			return nil, errors.New("it is neither a file nor a folder; what comes out of a pipe is imported with -")
		}
	}
	s := &spool{ctx: ctx, dir: a.Spool, report: a.Report}
	file := file{path: a.Path}
	if a.Path == "" {
		var err error
		if file, err = s.keep("archive", a.Reader, 0); err != nil {
			return nil, err
		}
	}
	kind, err := look(ctx, file.path)
	if err != nil {
		return nil, err
	}
	if kind.rootFS {
		return rootFS(s, file, kind.compression, platform)
	}
	if kind.compression != compression.None {
		if file, err = s.uncompress("archive.tar", file.path, kind.compression); err != nil {
			return nil, err
		}
	}
	members, err := indexTar(ctx, file.path)
	if err != nil {
		return nil, err
	}
	return imageIn(members, a.Ref, platform)
}

// kind is what an archive turns out to be.
type kind struct {
	compression compression.Format
	rootFS      bool
}

// maxUndecided is how many members may say nothing about what an archive is.
const maxUndecided = 10_000

// ofImages are the names that only archives of images have at their top.
func ofImages(top, name string) bool {
	switch name {
	case "manifest.json", "index.json", "oci-layout", "repositories":
		return true
	}
	return top == "blobs" || hexName.MatchString(top)
}

// hexName is the name of a layer's folder, or of a layer or configuration, in
// what docker save writes.
var hexName = regexp.MustCompile(`^[0-9a-f]{64}(\.json|\.tar)?$`)

// ofRootFS are the folders that only a root file system has at its top.
func ofRootFS(top string) bool {
	switch top {
	case "bin", "sbin", "usr", "lib", "lib64", "etc", "dev", "proc", "sys", "root", "home", "var", "opt", "tmp", "run", "mnt", "srv", "boot", "media":
		return true
	}
	return false
}

// look finds out what an archive is, by its first members that tell.
func look(ctx context.Context, path string) (kind, error) {
	f, err := os.Open(path)
	if err != nil {
		return kind{}, err
	}
	defer func() { _ = f.Close() }()
	k := kind{}
	if k.compression, err = sniff(f); err != nil {
		return kind{}, err
	}
	r, closer, err := uncompressed(k.compression, f)
	if err != nil {
		return kind{}, err
	}
	defer closer()
	var firsts []string
	tr := tar.NewReader(r)
	for n := 0; n < maxUndecided; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) && n > 0 {
			break
		}
		if errors.Is(err, io.EOF) {
			return kind{}, errors.New("it is empty")
		}
		if err != nil {
			return kind{}, fmt.Errorf("it is no archive that can be read: %w", err)
		}
		if ctx.Err() != nil {
			return kind{}, ctx.Err()
		}
		name := memberName(h.Name)
		top, _, _ := strings.Cut(name, "/")
		if ofImages(top, name) {
			return k, nil
		}
		if ofRootFS(top) {
			k.rootFS = true
			return k, nil
		}
		if len(firsts) < 3 && name != "" {
			firsts = append(firsts, clip(printable(name)))
		}
	}
	return kind{}, api.Errorf(api.KindInvalid,
		"it is neither what docker save writes, nor an OCI layout, nor a root file system with folders like bin, etc and usr at its top; it begins with %s", strings.Join(firsts, ", "))
}

// memberName gives the name of a member as it is looked for: no ./ or / before
// it, no .. in it.
func memberName(name string) string { return path.Clean("/" + name)[1:] }

// rootFS is the image of a plain root file system: one layer, no configuration.
func rootFS(s *spool, f file, c compression.Format, platform v1.Platform) (*Image, error) {
	mediaType, ok := mediaTypeOf(c)
	var err error
	switch {
	case !ok: // nobody else reads xz and bzip2
		mediaType = MediaTypeTar
		f, err = s.uncompress("layer.tar", f.path, c)
	case f.digest == "":
		f, err = s.measure(f.path)
	}
	if err != nil {
		return nil, err
	}
	l := Layer{Digest: f.digest, MediaType: mediaType, Size: f.size, Open: func() (io.ReadCloser, error) { return f.open() }}
	if mediaType == MediaTypeTar {
		l.DiffID = l.Digest
	}
	return &Image{Digest: f.digest, TargetDigest: f.digest, Platform: platformName(platform), Layers: []Layer{l}}, nil
}

// contents are the members of an archive that is no plain root file system.
type contents interface {
	// open gives a member; the error is fs.ErrNotExist when there is none.
	open(name string) (io.ReadCloser, int64, error)
}

// folder is an archive that has been unpacked, or was written as a folder.
type folder string

func (f folder) open(name string) (io.ReadCloser, int64, error) {
	root, err := os.OpenRoot(string(f)) // no link leads out of it
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = root.Close() }()
	file, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, 0, err
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		_ = file.Close()
		return nil, 0, err
	}
	return file, fi.Size(), nil
}

// small reads a small member whole.
func small(c contents, name string) ([]byte, error) {
	r, size, err := c.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if size > maxManifest {
		return nil, fmt.Errorf("its %s has %d bytes, more than %d", clip(name), size, maxManifest)
	}
	return readBounded(r, maxManifest)
}

// imageIn finds the image in the members of an archive. A layout comes first:
// current Dockers write both, and only it has a manifest.
func imageIn(c contents, ref string, platform v1.Platform) (*Image, error) {
	index, err := small(c, "index.json")
	if err == nil {
		return imageInLayout(c, index, ref, platform)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	manifest, err := small(c, "manifest.json")
	if err == nil {
		return imageInDocker(c, manifest, ref, platform)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if _, isFolder := c.(folder); isFolder {
		return nil, api.Errorf(api.KindInvalid, "the folder holds no OCI layout (index.json); a root file system is imported as a tar: tar -C %s -c . | banger image import -", c)
	}
	return nil, api.Errorf(api.KindUnsupported, "it has neither manifest.json nor index.json: it was written by a Docker older than 1.10, or is cut short")
}

// named is one image of an archive and what it is called there.
type named[T any] struct {
	names  []string
	digest string
	image  T
}

// pick chooses the image that ref names; without one there must be one only.
func pick[T any](all []named[T], ref string) (named[T], error) {
	var names []string
	for _, n := range all {
		if ref == "" && len(all) == 1 || ref != "" && n.is(ref) {
			return n, nil
		}
		names = append(names, n.label())
	}
	const most = 20
	if len(names) > most {
		names = append(names[:most], "…")
	}
	var err *api.Error
	switch {
	case len(all) == 0:
		err = api.Errorf(api.KindInvalid, "it holds no image")
	case ref == "":
		err = api.Errorf(api.KindInvalid, "it holds %d images, and none was named: %s", len(all), strings.Join(names, ", "))
	default:
		err = api.Errorf(api.KindNotFound, "it holds no image %s, only %s", clip(ref), strings.Join(names, ", "))
	}
	err.Candidates = names
	return named[T]{}, err
}

func (n named[T]) label() string {
	if len(n.names) > 0 {
		return clip(printable(n.names[0]))
	}
	return n.digest
}

// is says whether ref names the image: as it is written there, in full, by its
// tag alone or by its digest.
func (n named[T]) is(ref string) bool {
	if ref == n.digest {
		return true
	}
	want, werr := ParseReference(ref, true)
	for _, name := range n.names {
		if name == ref {
			return true
		}
		if has, err := ParseReference(name, true); err == nil && werr == nil && !IsShort(name) && has == want {
			return true
		}
	}
	return false
}

// reference gives the name as a reference in full, that which ref means where
// there are several; empty where there is none but a tag or a name of somebody's
// own.
func (n named[T]) reference(ref string) string {
	var first string
	for _, name := range n.names {
		r, err := ParseReference(name, false)
		if err != nil {
			continue
		}
		if (named[T]{names: []string{name}}).is(ref) {
			return r.String()
		}
		if first == "" {
			first = r.String()
		}
	}
	return first
}

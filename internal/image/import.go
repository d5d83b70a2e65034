package image

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/docker/go-units"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/pull"
)

// FromArchive is the kind of a pull.Source that is a file or folder: an archive of
// docker save, an OCI layout as folder or tar, a root file system's tar.
const FromArchive = "archive"

// Keys of pull.Source.With.
const (
	WithReference = "reference" // which image of an archive
	withSeed      = "work_seed" // folder or archive that new homes are filled from
	withSpool     = "spool"     // the archive is ours, and goes at the end
)

// Import begins making an image from a file or folder.
func (m *Manager) Import(ctx context.Context, req api.ImportImage) (api.Operation, error) {
	if !filepath.IsAbs(req.Path) {
		return api.Operation{}, api.Errorf(api.KindInvalid, "cannot import image %q: %q is not an absolute path", clip(req.Name), clip(req.Path))
	}
	if _, err := os.Stat(req.Path); err != nil {
		return api.Operation{}, api.Errorf(fileKind(err), "cannot import image %q: %w", clip(req.Name), err).WithHint("ls -l %s", req.Path)
	}
	return m.importFrom(ctx, req, "")
}

// ImportStream takes an archive that is read from body, which it reads to its end
// before it begins; req.Path is ignored.
func (m *Manager) ImportStream(ctx context.Context, req api.ImportImage, body io.Reader) (_ api.Operation, err error) {
	if err := m.checkImport(ctx, req); err != nil {
		return api.Operation{}, err
	}
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	// Under a name that the next daemon clears, should this one die.
	path := filepath.Join(m.layout.Staging(), "image-import-"+hex.EncodeToString(b[:])+".tar")
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return api.Operation{}, fmt.Errorf("cannot import image %q: %w", req.Name, err)
	}
	n, err := io.Copy(f, body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		err = noSpace(fmt.Errorf("cannot import image %q: %w", req.Name, err), path)
		if api.KindOf(err) == api.KindNoSpace { // how much more would come is not known
			err = needing(err, fmt.Sprintf("the archive needs more than %s, and its image more again", units.BytesSize(float64(n))))
		}
		return api.Operation{}, err
	}
	req.Path = path
	return m.importFrom(ctx, req, path)
}

func (m *Manager) checkImport(ctx context.Context, req api.ImportImage) error {
	if err := checkName(req.Name); err != nil {
		return err
	}
	if err := m.checkKernel(ctx, req.Kernel); err != nil {
		return err
	}
	return checkSeed(req.WorkSeed)
}

func (m *Manager) importFrom(ctx context.Context, req api.ImportImage, spool string) (api.Operation, error) {
	if err := m.checkImport(ctx, req); err != nil {
		return api.Operation{}, err
	}
	return m.pulls.Begin(ctx, pull.Job{
		Kind: kindImport, Name: req.Name, Named: true, Replace: req.Replace,
		Source: pull.Source{Kind: FromArchive, Ref: filepath.Clean(req.Path), With: with(WithReference, req.Reference, withKernel, req.Kernel, withSeed, req.WorkSeed, withSpool, spool)},
	})
}

// endSpool removes the archive of a job that was sent to us.
func (m *Manager) endSpool(job pull.Job) {
	if spool := job.Source.With[withSpool]; spool != "" {
		if err := os.RemoveAll(spool); err != nil {
			m.log.Warn("cannot remove an archive", "path", spool, "error", err)
		}
	}
}

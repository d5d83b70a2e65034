package image

import (
	"context"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// The kinds of images.
const (
	KindDebian = "debian" // built from Debian packages
	KindOCI    = "oci"    // flattened from layers
)

// record is that of an image with this manifest, without what belongs to its name.
func (m Manifest) record(kind string, now time.Time) store.Image {
	source := map[string]string{}
	maps.Copy(source, m.Source)
	return store.Image{
		ID: idOf(m.Digest), Digest: m.Digest, Kind: kind, SizeBytes: m.SizeBytes, Config: m.Config, Source: source, CreatedAt: now.UTC(),
	}
}

// idOf is the id of an image: the beginning of its digest.
func idOf(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(16, len(hex))]
}

// check looks whether the image's files are whole.
func (m *Manager) check(i store.Image) (wrong string, err error) {
	if i.Root != "" {
		return "", checkOwn(i)
	}
	dir := m.layout.Image(i.ID)
	manifest, err := ReadManifest(dir)
	if err != nil {
		return "", err
	}
	fi, err := os.Stat(dir.RootFS())
	if err != nil {
		return "", err
	}
	if fi.Size() != manifest.SizeBytes || manifest.Digest != i.Digest {
		wrong = dir.RootFS() + " is not what its manifest says"
	}
	return wrong, nil
}

// checkOwn looks whether the files of the user's own are as they were.
func checkOwn(i store.Image) error {
	for _, f := range i.Files {
		same, err := unchanged(f)
		if err != nil {
			return err
		}
		if !same {
			return api.Errorf(api.KindBadState, "cannot use image %q: %s changed since it was registered; register it again with --replace",
				first(i.Name, i.ID), f.Path).WithHint("ls -l %s", f.Path)
		}
	}
	return nil
}

// Root is where an image's root file system lies.
func (m *Manager) Root(i store.Image) string {
	return first(i.Root, m.layout.Image(i.ID).RootFS())
}

// Usable gives the path of an image's root file system once it was looked whether
// all its files are there and what they were.
func (m *Manager) Usable(i store.Image) (path string, err error) {
	return m.Root(i), m.pulls.Whole(i)
}

// mend is a command that may make an image's files whole again.
func mend(i store.Image) string {
	switch {
	case i.Root != "":
		return "ls -l " + i.Root
	case i.Kind != KindDebian && i.Kind != KindOCI || i.Reference == "":
		return "banger image show " + first(i.Name, i.ID)
	case i.Name == i.Reference:
		return "banger image pull " + i.Name + " --force"
	}
	return "banger image pull " + i.Reference + " --name " + i.Name + " --force"
}

// remove forgets one name of an image, or all.
func (m *Manager) remove(ctx context.Context, i store.Image, byID bool) (gone bool, err error) {
	if byID || i.Name == "" {
		return true, m.store.DeleteImage(ctx, i.ID)
	}
	_, gone, err = m.store.DeleteImageName(ctx, i.Name)
	return gone, err
}

// view is what a client sees of an image.
func (m *Manager) view(i store.Image, usedBy []string, changed bool, before *store.Image) api.Image {
	v := api.Image{
		ID: i.ID, Name: i.Name, Names: list(i.Names), Digest: i.Digest, Kind: i.Kind, Reference: i.Reference, ReferenceDigest: i.ReferenceDigest,
		Kernel: i.Kernel, SizeBytes: i.SizeBytes, CreatedAt: i.CreatedAt, UsedBy: usedBy, Changed: changed, Source: i.Source,
		Config: api.ImageConfig{
			Env: list(i.Config.Env), Workdir: i.Config.Workdir, User: i.Config.User,
			Entrypoint: list(i.Config.Entrypoint), Cmd: list(i.Config.Cmd),
		},
	}
	if err := m.pulls.Whole(i); err != nil {
		v.Error = api.AsError(err)
	}
	if before != nil {
		v.PreviousDigest = before.Digest
	}
	return v
}

// list gives JSON an empty array for nothing.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

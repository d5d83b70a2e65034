package image

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/docker/go-units"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layers"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/oci"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// Registries is where layers come from; *oci.Client is the real one.
type Registries interface {
	Resolve(ctx context.Context, ref oci.Reference) (digest string, err error)
	Fetch(ctx context.Context, ref oci.Reference, report oci.Report) (*oci.Image, error)
}

// Reference gives the full form of a registry's reference; short allows Docker's
// short names. It is what Options.Parse is in earnest.
func Reference(ref string, short bool) (string, error) {
	r, err := oci.ParseReference(ref, short)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}

// What Image.Source says of a flattened image.
const (
	sourceManifest = "manifest" // digest of the manifest
	sourceConfig   = "config"   // digest of the configuration
	sourceBuilder  = "builder"  // generation of the flattening
	sourcePlatform = "platform"
)

// remote makes images of what registries have.
type remote struct {
	m          *Manager
	registries Registries
}

// Plan asks the registry what the reference means now. What is here already is
// known by that; anything else is fetched, for its id is that of its content.
func (r remote) Plan(ctx context.Context, from pull.Source, report pull.Report) (pull.Plan[store.Image], error) {
	var none pull.Plan[store.Image]
	ref, err := oci.ParseReference(from.Ref, false)
	if err != nil {
		return none, err
	}
	digest, err := r.registries.Resolve(ctx, ref)
	if err != nil {
		return none, err
	}
	describe := func(i store.Image) store.Image {
		i.Reference, i.ReferenceDigest = ref.String(), digest
		return i
	}
	// Whatever the tag comes to mean meanwhile, this is what is made.
	exact := ref
	exact.Digest = digest
	all, err := r.m.store.Images(ctx)
	if err != nil {
		return none, err
	}
	for _, i := range all {
		if i.ReferenceDigest == digest && i.Source[sourceBuilder] == generation() {
			return pull.Plan[store.Image]{
				ID: i.ID, Key: "content " + i.ID, Describe: describe,
				Make: func(ctx context.Context, dir, _ string, report pull.Report) (store.Image, error) {
					image, err := r.fetch(ctx, exact, report)
					if err != nil {
						return store.Image{}, err
					}
					defer image.Close()
					return r.m.flatten(ctx, dir, image, report)
				},
			}, nil
		}
	}
	image, err := r.fetch(ctx, exact, report)
	if err != nil {
		return none, err
	}
	return r.m.planLayers(image, describe)
}

func (r remote) fetch(ctx context.Context, ref oci.Reference, report pull.Report) (*oci.Image, error) {
	report("fetching layers", api.Progress{})
	return r.registries.Fetch(ctx, ref, func(done, total int64) {
		report("fetching layers", api.Progress{Done: done, Total: total, Unit: "bytes"})
	})
}

// archived makes images of archives.
type archived struct{ m *Manager }

func (a archived) Plan(ctx context.Context, from pull.Source, report pull.Report) (pull.Plan[store.Image], error) {
	var none pull.Plan[store.Image]
	// Under a name that the next daemon clears, should this one die.
	spool, err := os.MkdirTemp(a.m.layout.Staging(), "image-spool-")
	if err != nil {
		return none, fmt.Errorf("cannot make a folder to unpack %s in: %w", from.Ref, err)
	}
	end := func() {
		if err := os.RemoveAll(spool); err != nil {
			a.m.log.WarnContext(ctx, "cannot remove what an import left", "path", spool, "error", err)
		}
	}
	image, err := oci.OpenArchive(ctx, oci.Archive{
		Path: from.Ref, Spool: spool, Ref: from.With[WithReference],
		Report: func(done, total int64) {
			report("reading the archive", api.Progress{Done: done, Total: total, Unit: "bytes"})
		},
	})
	if err != nil {
		end()
		return none, err
	}
	origin := from.Ref
	if from.With[withSpool] != "" {
		origin = "stdin"
	}
	plan, err := a.m.planLayers(image, func(i store.Image) store.Image {
		i.Reference, i.ReferenceDigest = first(image.Reference, origin), ""
		return i
	})
	if err != nil {
		end()
		return none, err
	}
	closeImage := plan.Close
	plan.Close = func() {
		closeImage()
		end()
	}
	return plan, nil
}

// generation is that of the flattening, as Image.Source has it.
func generation() string { return strconv.Itoa(layers.BuilderVersion) }

// planLayers is the plan for an image whose layers can be read; its Close closes it.
func (m *Manager) planLayers(image *oci.Image, describe func(store.Image) store.Image) (pull.Plan[store.Image], error) {
	digest, err := contentOf(image)
	if err != nil {
		image.Close()
		return pull.Plan[store.Image]{}, err
	}
	return pull.Plan[store.Image]{
		ID: idOf(digest), Key: "content " + idOf(digest), Describe: describe, Close: image.Close,
		Make: func(ctx context.Context, dir, _ string, report pull.Report) (store.Image, error) {
			return m.flatten(ctx, dir, image, report)
		},
	}, nil
}

// contentOf names what an image's layers come to: its configuration, the layers as
// they are unpacked, and the way they are flattened.
func contentOf(image *oci.Image) (string, error) {
	ids := make([]string, len(image.Layers))
	for n, l := range image.Layers {
		if ids[n] = l.DiffID; ids[n] == "" {
			ids[n] = "blob " + l.Digest // nobody said what is in it
		}
	}
	return layers.ID([]byte(image.ConfigDigest), ids)
}

// flatten makes the files of an image of its layers.
func (m *Manager) flatten(ctx context.Context, dir string, image *oci.Image, report pull.Report) (store.Image, error) {
	digest, err := contentOf(image)
	if err != nil {
		return store.Image{}, err
	}
	var stack []layers.Layer
	var compressed int64
	blobs := []string{}
	if image.ConfigDigest != "" {
		blobs = append(blobs, image.ConfigDigest)
	}
	for _, l := range image.Layers {
		stack = append(stack, layers.Layer{
			Name: l.Digest, DiffID: l.DiffID, Size: l.Size, Open: l.Open,
			Known: l.Known, Points: l.Points, OpenAt: l.OpenAt, Check: l.Check, Unpacked: l.Unpacked,
		})
		blobs = append(blobs, l.Digest)
		compressed += l.Size
	}
	// Unpacked, it is never less.
	if err := debian.CheckSpace("write image", debian.Need{Dir: dir, Bytes: compressed}); err != nil {
		return store.Image{}, err
	}
	d := layout.ImageDir{Dir: dir}
	const stage = "writing the file system"
	report(stage, api.Progress{})
	stats, err := layers.Write(ctx, d.RootFS(), ext4.UUID(digest), stack, layers.Limits{}, func(done, total int64) {
		report(stage, api.Progress{Done: done, Total: total, Unit: "bytes"})
	})
	if err != nil {
		if api.KindOf(err) == api.KindNoSpace {
			return store.Image{}, needing(err, "it needs "+unpackedSize(ctx, stack))
		}
		return store.Image{}, err
	}
	m.log.InfoContext(ctx, "flattened layers", "image", image.Digest, "members", stats.Members, "bytes", stats.Uncompressed, "spooled", stats.Spooled,
		"decompress", stats.Decompress, "hash", stats.Hash, "merge", stats.Merge)
	fi, err := os.Stat(d.RootFS())
	if err != nil {
		return store.Image{}, err
	}
	man := Manifest{
		Version: manifestVersion, Digest: digest, SizeBytes: fi.Size(), Config: image.Config, Blobs: blobs,
		Source: map[string]string{sourceManifest: image.Digest, sourceConfig: image.ConfigDigest, sourceBuilder: generation(), sourcePlatform: image.Platform},
	}
	if image.ConfigDigest == "" { // of a root file system
		delete(man.Source, sourceConfig)
	}
	if err := pull.WriteManifest(d.Manifest(), man); err != nil {
		return store.Image{}, noSpace(err, dir)
	}
	return man.record(KindOCI, m.opt.Now()), nil
}

// countUpTo bounds what unpackedSize reads.
const countUpTo = 8 << 30

// unpackedSize says how much layers come to, by reading them: nothing else tells.
func unpackedSize(ctx context.Context, stack []layers.Layer) string {
	total, err := layers.Unpacked(ctx, stack, countUpTo)
	if err != nil || total >= countUpTo {
		return "more than " + units.BytesSize(float64(total))
	}
	return "about " + units.BytesSize(float64(total))
}

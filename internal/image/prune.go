package image

import (
	"context"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// Blobs is the cache of what was downloaded, by digest.
type Blobs interface {
	// Prune deletes what is not kept and no pull needs, and says how much; dry only
	// tells.
	Prune(keep map[string]bool, dry bool) (blobs int, bytes int64, err error)
}

// Prune deletes the images that no VM uses and that lost their names, with all
// those that have one, and then the downloads that belong to no image. A dry run
// only tells.
func (m *Manager) Prune(ctx context.Context, req api.PruneImages) (api.PrunedImages, error) {
	out := api.PrunedImages{Images: []api.Image{}, DryRun: req.DryRun}
	recs, err := m.store.Images(ctx)
	if err != nil {
		return out, err
	}
	vms, err := m.store.VMs(ctx)
	if err != nil {
		return out, err
	}
	used := map[string]bool{}
	for _, vm := range vms {
		used[vm.ImageID] = true
	}
	keep, gone := map[string]bool{}, map[string]bool{}
	for _, i := range recs {
		if used[i.ID] || i.Name != "" && !req.All || i.Root != "" && i.Name != "" {
			// What the user registered costs nothing and is not ours to forget.
			m.keepBlobs(i, keep)
			continue
		}
		bytes := int64(0)
		if !gone[i.ID] {
			bytes = diskUsage(m.layout.Image(i.ID).Dir)
		}
		if !req.DryRun {
			was, all, err := m.pulls.Delete(ctx, first(i.Name, i.ID))
			switch api.KindOf(err) {
			case "":
				m.deleted(was, all)
			case api.KindBadState, api.KindNotFound: // used, or deleted, since we looked
				m.keepBlobs(i, keep)
				continue
			default:
				return out, err
			}
		}
		gone[i.ID] = true
		out.Images = append(out.Images, m.view(i, []string{}, !req.DryRun, nil))
		out.FreedBytes += bytes
	}
	if m.opt.Blobs == nil {
		return out, nil
	}
	blobs, bytes, err := m.opt.Blobs.Prune(keep, req.DryRun)
	out.Blobs = blobs
	out.FreedBytes += bytes
	return out, err
}

// keepBlobs notes the blobs that an image was made of.
func (m *Manager) keepBlobs(i store.Image, keep map[string]bool) {
	manifest, err := ReadManifest(m.layout.Image(i.ID))
	if err != nil {
		m.log.Warn("blobs of an image not known", "image", i.ID, "error", err)
	}
	for _, b := range manifest.Blobs {
		keep[b] = true
	}
}

// diskUsage is what the files of a folder take on the disk.
func diskUsage(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what is not there takes nothing
		}
		if fi, err := d.Info(); err == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return bytes
}

package image

import (
	"context"
	"errors"
	"os"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/seed"
	"github.com/bangervm/banger/internal/store"
)

// seeded adds a work seed to what a plan makes. The same root file system with
// another seed is another image; which, only making tells.
func seeded(plan pull.Plan[store.Image], source string) pull.Plan[store.Image] {
	makeRoot := plan.Make
	plan.ID, plan.Key, plan.Same, plan.InPlace = "", "", nil, false
	plan.Make = func(ctx context.Context, dir, tempDir string, report pull.Report) (store.Image, error) {
		i, err := makeRoot(ctx, dir, tempDir, report)
		if err != nil {
			return i, err
		}
		digest, err := addSeed(ctx, layout.ImageDir{Dir: dir}, source, report)
		if err != nil {
			return i, err
		}
		i.ID = idOf(digestText(i.ID + "\nwork seed " + digest))
		i.Source["work_seed"] = source
		return i, nil
	}
	return plan
}

// addSeed makes the work seed of an image and gives its digest.
func addSeed(ctx context.Context, dir layout.ImageDir, source string, report pull.Report) (string, error) {
	const stage = "making the work seed"
	report(stage, api.Progress{})
	if _, err := seed.Write(ctx, dir.WorkSeed(), source, func(bytes int64) {
		report(stage, api.Progress{Done: bytes, Unit: "bytes"})
	}); err != nil {
		return "", err
	}
	digest, _, err := digestFile(ctx, dir.WorkSeed(), nil)
	return digest, err
}

// keepSeed copies the work seed of one image to another, where it has one.
func keepSeed(ctx context.Context, to, from layout.ImageDir) error {
	_, err := os.Stat(from.WorkSeed())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return copyFile(ctx, to.WorkSeed(), from.WorkSeed(), func(string, api.Progress) {})
}

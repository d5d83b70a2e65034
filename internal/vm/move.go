package vm

import (
	"context"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
)

// noteMove is what the step resolve of a set has found: the VM's next image.
const noteMove = "move"

// move is another image for a VM, from its next start on. The disks stay: the
// home is the user's, and the system disk, whose files lie over those of the new
// image.
type move struct {
	Image  store.Image   `json:"image"`
	Kernel *store.Kernel `json:"kernel,omitempty"` // nil: it stays
}

// setSteps are those of a set. Finding an image may take a pull, which holds up
// nothing else of the VM.
func (m *Manager) setSteps(op *operation.Op) ([]operation.Step, error) {
	var p verbParams
	if err := op.Params(&p); err != nil {
		return nil, err
	}
	set := operation.Step{Name: "set", Do: verbStep(m.doSet)}
	if p.Set == nil || p.Set.Image == "" {
		return []operation.Step{set}, nil
	}
	return []operation.Step{{Name: "resolve", Do: verbStep(m.findMove)}, set}, nil
}

// findMove finds the image and, where the VM has the kernel that its present
// image wants, the one that the new image wants.
func (m *Manager) findMove(ctx context.Context, op *operation.Op, p verbParams) error {
	report := func(stage string, progress api.Progress) {
		op.Stage(stage)
		op.Progress(progress.Done, progress.Total, progress.Unit)
	}
	op.Stage("resolving image " + p.Set.Image)
	var found move
	var err error
	if found.Image, err = m.d.Images.Resolve(ctx, p.Set.Image, first(p.Set.Pull, "missing"), report); err != nil {
		return err
	}
	rec, err := m.d.Store.VM(ctx, p.ID)
	if err != nil {
		return err
	}
	if rec.ImageEntrypoint && len(found.Image.Config.Entrypoint) == 0 {
		return noEntrypoint(found.Image)
	}
	follows, err := m.hasImagesKernel(ctx, rec)
	if err != nil {
		return err
	}
	if follows {
		policy := first(p.Set.Pull, "missing")
		if policy == "always" {
			policy = "missing" // always is about the image
		}
		kernel, err := m.d.Kernels.Resolve(ctx, found.Image.Kernel, policy, report)
		if err != nil {
			return err
		}
		found.Kernel = &kernel
	}
	return op.Set(noteMove, found)
}

// hasImagesKernel says whether the VM boots the kernel that its image wants,
// rather than one of its owner's choice.
func (m *Manager) hasImagesKernel(ctx context.Context, rec store.VM) (bool, error) {
	image, err := m.d.Store.Image(ctx, rec.ImageID)
	if err != nil {
		return false, err
	}
	kernel, err := m.d.Kernels.Resolve(ctx, image.Kernel, "never", func(string, api.Progress) {})
	if api.KindOf(err) == api.KindNotFound {
		return false, nil
	}
	return err == nil && kernel.ID == rec.KernelID, err
}

// apply makes the record say it; an empty move changes nothing.
func (mv move) apply(v *store.VM) {
	if mv.Image.ID == "" {
		return
	}
	v.ImageID, v.ImageName, v.ImageDigest = mv.Image.ID, mv.Image.Name, mv.Image.Digest
	v.Init, v.InitReason = chooseInit(first(v.InitAsked, auto), mv.Image.Config)
	if mv.Kernel != nil {
		v.KernelID, v.KernelName, v.KernelVer = mv.Kernel.ID, mv.Kernel.Name, mv.Kernel.Version
	}
}

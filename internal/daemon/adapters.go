package daemon

import (
	"context"
	"io"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/host/mapper"
	"github.com/bangervm/banger/internal/image"
	"github.com/bangervm/banger/internal/kernel"
	"github.com/bangervm/banger/internal/oci"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vm"
)

// Adapters stand where a room and its user differ in a word; none decides
// anything.

type vmImages struct{ *image.Manager }

func (i vmImages) Resolve(ctx context.Context, ref, pull string, report vm.Report) (store.Image, error) {
	return i.Manager.Resolve(ctx, ref, pull, report)
}

// imageBlobs says how many blobs went.
type imageBlobs struct{ *oci.Blobs }

func (b imageBlobs) Prune(keep map[string]bool, dry bool) (blobs int, bytes int64, err error) {
	gone, err := b.Blobs.Prune(keep, dry)
	for _, g := range gone {
		bytes += g.Size
	}
	return len(gone), bytes, err
}

type vmKernels struct{ *kernel.Manager }

func (k vmKernels) Resolve(ctx context.Context, name, pull string, report vm.Report) (store.Kernel, error) {
	return k.Manager.Resolve(ctx, name, pull, report)
}

// vmSnapshots makes root disks with device-mapper.
type vmSnapshots struct{ *mapper.Mapper }

func (vmSnapshots) ChangesSize(bytes int64) int64 { return mapper.ChangesSize(bytes) }

func (s vmSnapshots) Open(ctx context.Context, id, base, changes string, bytes int64) (string, io.Closer, error) {
	d, err := s.Mapper.Open(ctx, id, base, changes, bytes)
	if err != nil {
		return "", nil, err
	}
	return d.Path, d, nil
}

type httpVMs struct{ *vm.Manager }

func (v httpVMs) Logs(ctx context.Context, ref string, o logOptions, w io.Writer) error {
	return v.Manager.Logs(ctx, ref, vm.LogOptions(o), w)
}

func (v httpVMs) Exec(ctx context.Context, ref string, req api.Exec, s *stream) error {
	return v.Manager.Exec(ctx, ref, req, s)
}

func (v httpVMs) Run(ctx context.Context, req api.Run, s *stream) error {
	return v.Manager.Run(ctx, req, s)
}

type httpOperations struct{ *operation.Registry }

func (o httpOperations) List(ctx context.Context) ([]api.Operation, error) {
	return o.Registry.List(ctx, operation.Filter{})
}

func (o httpOperations) Running() int { return len(o.Registry.Running(operation.Filter{})) }

func (o httpOperations) Watch(ctx context.Context, id string) (<-chan api.Operation, error) {
	if _, err := o.Get(ctx, id); err != nil {
		return nil, err
	}
	return o.Registry.Watch(ctx, id), nil
}

func (o httpOperations) Cancel(ctx context.Context, id string) (api.Operation, error) {
	if err := o.Registry.Cancel(id); err != nil {
		return api.Operation{}, err
	}
	return o.Get(ctx, id)
}

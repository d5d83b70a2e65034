package daemon

import (
	"context"
	"io"
	"time"

	"github.com/bangervm/banger/api"
)

// What the handlers ask of each noun. The wiring fits the rooms to these, tests
// hand in fakes.

type vmService interface {
	List(ctx context.Context, filters []string) ([]api.VM, error)
	Show(ctx context.Context, ref string) (api.VM, error)
	Create(ctx context.Context, req api.CreateVM) (api.Operation, error)
	Start(ctx context.Context, ref string) (api.Operation, error)
	Stop(ctx context.Context, ref string, req api.StopVM) (api.Operation, error)
	Restart(ctx context.Context, ref string) (api.Operation, error)
	Delete(ctx context.Context, ref string, force bool) (api.Operation, error)
	Kill(ctx context.Context, ref string, req api.KillVM) (api.VM, error)
	Rename(ctx context.Context, ref string, req api.RenameVM) (api.VM, error)
	Set(ctx context.Context, ref string, req api.SetVM) (api.VM, error)
	Wait(ctx context.Context, ref, until string) (api.VM, error)
	Logs(ctx context.Context, ref string, opts logOptions, w io.Writer) error
	Prune(ctx context.Context, req api.PruneVMs) ([]api.Result, error)
	Exec(ctx context.Context, ref string, req api.Exec, s *stream) error
	Run(ctx context.Context, req api.Run, s *stream) error
}

// logOptions say which part of a VM's log is wanted.
type logOptions struct {
	Follow  bool
	Since   time.Time // zero: from the beginning
	Tail    int       // last lines; negative: all
	Console bool      // the console, though the VM has another log
}

type imageService interface {
	List(ctx context.Context) ([]api.Image, error)
	Show(ctx context.Context, name string) (api.Image, error)
	Pull(ctx context.Context, req api.PullImage) (api.Operation, error)
	Import(ctx context.Context, req api.ImportImage) (api.Operation, error)
	ImportStream(ctx context.Context, req api.ImportImage, body io.Reader) (api.Operation, error)
	Register(ctx context.Context, req api.RegisterImage) (api.Operation, error)
	Promote(ctx context.Context, ref string, req api.PromoteImage) (api.Operation, error)
	Bundle(ctx context.Context, ref string, req api.BundleImage) (api.Operation, error)
	Delete(ctx context.Context, ref string) (api.Result, error)
	Prune(ctx context.Context, req api.PruneImages) (api.PrunedImages, error)
	// Catalog lists what can be pulled by name; refresh asks the catalogs anew.
	Catalog(ctx context.Context, refresh bool) ([]api.CatalogEntry, error)
}

type kernelService interface {
	List(ctx context.Context) ([]api.Kernel, error)
	Show(ctx context.Context, name string) (api.Kernel, error)
	Pull(ctx context.Context, req api.Pull) (api.Operation, error)
	Import(ctx context.Context, req api.ImportKernel) (api.Operation, error)
	Delete(ctx context.Context, ref string, dryRun bool) (api.Result, error)
	// Catalog lists what can be pulled by name; refresh asks the catalogs anew.
	Catalog(ctx context.Context, refresh bool) ([]api.CatalogEntry, error)
}

// catalogService tells of the catalogs themselves.
type catalogService interface {
	Catalogs() []api.Catalog
}

type systemService interface {
	Fetch(ctx context.Context, req api.FetchFirecracker) (api.Operation, error)
}

type operationService interface {
	List(ctx context.Context) ([]api.Operation, error)
	Get(ctx context.Context, id string) (api.Operation, error)
	Wait(ctx context.Context, id string) (api.Operation, error)
	Cancel(ctx context.Context, id string) (api.Operation, error)
	// Watch sends the operation as it is, then each change, last its end, then
	// closes the channel; also when ctx ends.
	Watch(ctx context.Context, id string) (<-chan api.Operation, error)
	Prune(ctx context.Context) ([]api.Operation, error)
	// Running counts those under way, without a look at the disk.
	Running() int
}

type eventService interface {
	// After gives the stored events with an id above since, oldest first, at
	// most a page of them.
	After(ctx context.Context, since int64) ([]api.Event, error)
	// Last is the id of the newest event.
	Last() int64
	// Subscribe gives a channel that holds a token whenever there may be new
	// events, and the function that ends the subscription.
	Subscribe() (news <-chan struct{}, done func())
}

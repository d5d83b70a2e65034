package daemon

import (
	"net/http"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/openapi"
)

// access says when a route answers. Who may ask is decided by the socket, which
// is its owner's alone.
type access int

const (
	always access = iota // also while the daemon recovers or leaves
	look                 // once the daemon has recovered; changes nothing
	change               // once the daemon has recovered, until it leaves
)

type handler func(*server, http.ResponseWriter, *http.Request) error

// route is one row of the table. A request whose fields carry query tags is read
// from the query, any other from the body; see decode.go.
type route struct {
	method, path string
	access       access
	handler      handler
	request      any
	reply        openapi.Reply
	summary      string
}

func ok(v any) openapi.Reply       { return openapi.Reply{JSON: v} }
func accepted(v any) openapi.Reply { return openapi.Reply{Status: http.StatusAccepted, JSON: v} }

// routes is all the daemon answers to. api/openapi.json is made from it.
func routes() []route {
	return []route{
		{"GET", "/v1/version", always, (*server).version, nil, ok(api.Version{}), "version and build of the daemon"},
		{"GET", "/v1/openapi.json", always, (*server).openAPI, nil, ok(map[string]any{}), "this document"},
		{"GET", "/v1/daemon", always, (*server).status, nil, ok(api.Daemon{}), "the daemon's account of itself"},
		{"POST", "/v1/daemon/stop", always, (*server).stopDaemon, nil, accepted(api.Daemon{}), "end the daemon in order; VMs run on"},
		{"GET", "/v1/doctor", look, (*server).checkHost, nil, ok([]api.Check{}), "check everything VMs need on this host"},
		{"GET", "/v1/config", always, (*server).configValues, nil, ok([]api.ConfigValue{}), "each configuration value and its source"},

		{"GET", "/v1/vms", look, (*server).listVMs, listVMsQuery{}, ok([]api.VM{}), "list VMs"},
		{"POST", "/v1/vms", change, (*server).createVM, api.CreateVM{}, accepted(api.Operation{}), "create a VM; the operation's result is the VM"},
		{"POST", "/v1/vms/prune", change, (*server).pruneVMs, api.PruneVMs{}, ok([]api.Result{}), "delete stopped VMs"},
		{"GET", "/v1/vms/{vm}", look, (*server).showVM, nil, ok(api.VM{}), "show a VM"},
		{"PATCH", "/v1/vms/{vm}", change, (*server).setVM, api.SetVM{}, ok(api.VM{}), "change a VM"},
		{"DELETE", "/v1/vms/{vm}", change, (*server).deleteVM, deleteVMQuery{}, accepted(api.Operation{}), "delete a VM, named exactly"},
		{"POST", "/v1/vms/{vm}/start", change, (*server).startVM, nil, accepted(api.Operation{}), "boot a VM"},
		{"POST", "/v1/vms/{vm}/stop", change, (*server).stopVM, api.StopVM{}, accepted(api.Operation{}), "shut a VM down; after the time-out it is killed"},
		{"POST", "/v1/vms/{vm}/restart", change, (*server).restartVM, nil, accepted(api.Operation{}), "stop a VM and boot it again"},
		{"POST", "/v1/vms/{vm}/kill", change, (*server).killVM, api.KillVM{}, ok(api.VM{}), "end a VM at once"},
		{"POST", "/v1/vms/{vm}/rename", change, (*server).renameVM, api.RenameVM{}, ok(api.VM{}), "give a VM another name"},
		{"GET", "/v1/vms/{vm}/wait", look, (*server).waitVM, waitVMQuery{}, ok(api.VM{}), "wait until a VM is running, stopped, or has ended"},
		{"GET", "/v1/vms/{vm}/logs", look, (*server).logsVM, logsQuery{}, openapi.Reply{Text: true}, "a VM's log, byte for byte"},
		{"GET", "/v1/vms/{vm}/exec", change, (*server).execVM, api.Exec{}, openapi.Reply{Upgrade: true}, "run a command in a VM; binary messages are a channel byte and its payload"},
		{"GET", "/v1/run", change, (*server).run, api.Run{}, openapi.Reply{Upgrade: true}, "create a VM, run one command in it, end it; the connection is the lease"},

		{"GET", "/v1/images", look, (*server).listImages, nil, ok([]api.Image{}), "list local images"},
		{"GET", "/v1/images/catalog", look, (*server).imageCatalog, catalogQuery{}, ok([]api.CatalogEntry{}), "list images that can be pulled by name"},
		{"GET", "/v1/images/{name}", look, (*server).showImage, nil, ok(api.Image{}), "show an image"},
		{"POST", "/v1/images/pull", change, (*server).pullImage, api.PullImage{}, accepted(api.Operation{}), "pull an image; the operation's result is the image"},
		{"POST", "/v1/images/import", change, (*server).importImage, api.ImportImage{}, accepted(api.Operation{}), "make an image from a file or folder of this host; the operation's result is the image"},
		{"POST", "/v1/images/import-stream", change, (*server).importStream, importQuery{}, accepted(api.Operation{}), "make an image from the archive that is the body; the operation's result is the image"},
		{"POST", "/v1/images/register", change, (*server).registerImage, api.RegisterImage{}, accepted(api.Operation{}), "make an image of a file that stays the user's own; the operation's result is the image"},
		{"POST", "/v1/images/prune", change, (*server).pruneImages, api.PruneImages{}, ok(api.PrunedImages{}), "delete images and downloads that nothing uses"},
		{"POST", "/v1/images/{name}/promote", change, (*server).promoteImage, api.PromoteImage{}, accepted(api.Operation{}), "copy a registered image under our management; the operation's result is the image"},
		{"DELETE", "/v1/images/{name}", change, (*server).deleteImage, nil, ok(api.Result{}), "delete a name of an image, named exactly, and the image with its last"},
		{"POST", "/v1/images/{name}/bundle", change, (*server).bundleImage, api.BundleImage{}, accepted(api.Operation{}), "write an image to one file; the operation's result is the bundle"},

		{"GET", "/v1/kernels", look, (*server).listKernels, nil, ok([]api.Kernel{}), "list local kernels"},
		{"GET", "/v1/kernels/catalog", look, (*server).kernelCatalog, catalogQuery{}, ok([]api.CatalogEntry{}), "list kernels that can be pulled by name"},
		{"GET", "/v1/kernels/{name}", look, (*server).showKernel, nil, ok(api.Kernel{}), "show a kernel"},
		{"POST", "/v1/kernels/pull", change, (*server).pullKernel, api.Pull{}, accepted(api.Operation{}), "pull a kernel; the operation's result is the kernel"},
		{"POST", "/v1/kernels/import", change, (*server).importKernel, api.ImportKernel{}, accepted(api.Operation{}), "make a kernel of what the user has; the operation's result is the kernel"},
		{"DELETE", "/v1/kernels/{name}", change, (*server).deleteKernel, deleteKernelQuery{}, ok(api.Result{}), "delete a kernel, named exactly, that nothing uses"},

		{"POST", "/v1/system/firecracker", change, (*server).fetchFirecracker, api.FetchFirecracker{}, accepted(api.Operation{}), "fetch a release of Firecracker; the operation's result says where it lies"},
		{"GET", "/v1/catalogs", look, (*server).listCatalogs, nil, ok([]api.Catalog{}), "list the catalogs, and how each was last read"},

		{"GET", "/v1/operations", look, (*server).listOperations, nil, ok([]api.Operation{}), "list operations"},
		{"POST", "/v1/operations/prune", change, (*server).pruneOperations, nil, ok([]api.Operation{}), "forget finished operations"},
		{"GET", "/v1/operations/{id}", look, (*server).showOperation, nil, ok(api.Operation{}), "show an operation"},
		{"GET", "/v1/operations/{id}/wait", look, (*server).waitOperation, waitQuery{}, ok(api.Operation{}), "wait for the end of an operation"},
		{"GET", "/v1/operations/{id}/events", look, (*server).watchOperation, nil, openapi.Reply{Events: api.Operation{}}, "follow an operation until its end"},
		{"POST", "/v1/operations/{id}/cancel", change, (*server).cancelOperation, nil, ok(api.Operation{}), "cancel an operation and undo what it did"},

		{"GET", "/v1/events", look, (*server).listEvents, eventsQuery{}, openapi.Reply{JSON: []api.Event{}, Events: api.Event{}}, "what happened; followed, as server-sent events"},
	}
}

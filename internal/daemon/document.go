package daemon

import (
	"reflect"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/openapi"
)

// document is the OpenAPI document of the routes. It names no build, so that the
// checked-in copy changes with the API alone.
func document() []byte {
	var rows []openapi.Route
	for _, r := range routes() {
		rows = append(rows, openapi.Route{Method: r.method, Path: r.path, Summary: r.summary, Request: r.request, Reply: r.reply})
	}
	return openapi.Document(openapi.Info{
		Title:   "banger",
		Version: "1",
		Description: "Linux microVMs, over HTTP on a Unix socket. Keys are only added; readers must bear unknown values. " +
			"A reply with status 202 is an operation: follow it at /v1/operations/{id}/events.",
		Error: api.ErrorReply{},
		Enums: map[reflect.Type][]string{
			reflect.TypeFor[api.Kind](): {
				string(api.KindInvalid), string(api.KindNotFound), string(api.KindExists), string(api.KindBusy),
				string(api.KindBadState), string(api.KindDenied), string(api.KindUnavailable), string(api.KindUnsupported),
				string(api.KindNoSpace), string(api.KindGuest), string(api.KindTimeout), string(api.KindCancelled), string(api.KindInternal),
			},
			reflect.TypeFor[api.Status](): {
				string(api.StatusCreating), string(api.StatusStarting), string(api.StatusRunning), string(api.StatusPaused),
				string(api.StatusStopping), string(api.StatusStopped), string(api.StatusDeleting), string(api.StatusBroken),
			},
			reflect.TypeFor[api.OperationStatus](): {
				string(api.OperationRunning), string(api.OperationSucceeded), string(api.OperationFailed),
				string(api.OperationCancelled), string(api.OperationInterrupted),
			},
		},
	}, rows)
}

package pull

import (
	"context"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/store"
)

// Report receives how far something is; it may be called from several goroutines.
type Report = func(stage string, progress api.Progress)

// Source is what a thing is made from, as an operation's parameters hold it.
type Source struct {
	Kind string `json:"kind"` // what the noun knows: catalog, oci, archive, …
	Ref  string `json:"ref"`  // a name, a reference, a path
	// With is what else was asked for: a platform, a kernel, …
	With map[string]string `json:"with,omitempty"`
}

// Job is one thing to make and publish.
type Job struct {
	// Kind of the operation; empty is <noun>.pull.
	Kind   string `json:"kind,omitempty"`
	Name   string `json:"name"` // that it gets
	Source Source `json:"source"`
	// Named says that the name was chosen by who asks. Any other is the source's
	// own: it moves when the source comes to mean something else.
	Named bool `json:"named,omitempty"`
	// Replace lets the name pass from another thing to this one.
	Replace bool `json:"replace,omitempty"`
	// Force makes it anew though it is here.
	Force bool `json:"force,omitempty"`
}

// Plan is a source looked at: what it means now, and how to make it.
type Plan[R any] struct {
	// ID is the id of what Make will make; empty when only making tells.
	ID string
	// Key is the same for all that would make the same; empty when nothing is.
	Key string
	// Same says, where there is no ID, whether what is here under the wanted name
	// need not be made again; nil means no.
	Same func(R) bool
	// Confirm, which may be nil, reads the source to its end where what it says at
	// its beginning is here already: an error when it does not keep its word.
	Confirm func(ctx context.Context, report Report) error
	// InPlace says that the files of the thing with the ID are to be replaced.
	InPlace bool
	// Describe fills in what a record says about its source under its name.
	Describe func(R) R
	// Make makes the files in dir, which exists and is empty, and gives the record.
	// tempDir is for debian.Options. What it leaves on an error is removed.
	Make func(ctx context.Context, dir, tempDir string, report Report) (R, error)
	// Close lets go what the plan holds open; it may be nil.
	Close func()
}

// Noun says how the things of one noun are found, made and recorded. R is their
// durable record, V what a client sees of it. All functions may be called from
// several goroutines.
type Noun[R, V any] struct {
	Name string // image, kernel
	// Kinds are those of its operations; the first is <name>.pull.
	Kinds []string
	// Catalog lists what can be pulled; Local is left unset. refresh asks those who
	// have the lists for what is new.
	Catalog func(ctx context.Context, refresh bool) ([]api.CatalogEntry, error)
	// Known says how to get what ref means without being told more. It is of kind
	// not-found when there is no way.
	Known func(ctx context.Context, ref string) (Job, error)
	// Alias is another name that ref may be here under; empty when there is none.
	// It may be nil.
	Alias func(ref string) string
	// Plan looks at the source of a job.
	Plan func(ctx context.Context, job Job, report Report) (Plan[R], error)
	// End, which may be nil, is told that a job needs its source no more: it was
	// made, or it failed. It may be told twice, and not when the daemon dies.
	End func(job Job)
	// Check looks whether the files of a record are there and readable, and says
	// what about them is wrong; nothing when they are whole.
	Check func(rec R) (wrong string, err error)
	// Mend is a command that may make files whole again.
	Mend func(rec R) string
	// Dir is the folder that the files of an id belong in.
	Dir func(id string) string
	// Forget says that what lost its last name and that no VM uses goes when a
	// daemon starts.
	Forget bool

	// ID of a record, where its name is, and what it was made from.
	ID        func(R) string
	NameOf    func(*R) *string
	Reference func(R) string
	// UsedID is the id of the thing that a VM was made from.
	UsedID func(store.VM) string
	// View is what a client sees; before is what the name meant, where it moved.
	View func(rec R, usedBy []string, changed bool, before *R) V

	// The store. Publish inserts or replaces a record and gives it its name as one;
	// take decides whether the name passes from its holder. Remove takes the exact
	// name, or all of the exact id, and says whether the thing went with it. Only
	// an error of kind not-found means that there is none.
	Publish      func(ctx context.Context, rec R, take func(holder R) error) error
	ByID, ByName func(ctx context.Context, ref string) (R, error)
	All          func(ctx context.Context) ([]R, error)
	Remove       func(ctx context.Context, rec R, byID bool) (gone bool, err error)
	VMs          func(ctx context.Context) ([]store.VM, error)
}

// Debian passes the progress of a build from Debian packages on.
func Debian(report Report) func(debian.Progress) {
	return func(p debian.Progress) { report(p.Stage, api.Progress{Done: p.Done, Total: p.Total, Unit: p.Unit}) }
}

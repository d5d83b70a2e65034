package image

import (
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/signature"
	"github.com/bangervm/banger/internal/store"
)

// Store keeps the durable records; *store.DB is the real one.
type Store interface {
	PublishImage(ctx context.Context, i store.Image, take func(holder store.Image) error) error
	UpdateImage(ctx context.Context, id string, change func(*store.Image) error) (store.Image, error)
	Image(ctx context.Context, id string) (store.Image, error)
	ImageByName(ctx context.Context, name string) (store.Image, error)
	Images(ctx context.Context) ([]store.Image, error)
	DeleteImage(ctx context.Context, id string) error
	DeleteImageName(ctx context.Context, name string) (i store.Image, gone bool, err error)
	VMs(ctx context.Context) ([]store.VM, error)
}

// Options are the host's part, and what tests change.
type Options struct {
	// Default is the image an empty reference means; empty is DefaultName.
	Default string
	// Mirror is the configuration's debian_mirror; empty means the host's own.
	Mirror string
	Now    func() time.Time
	// Build makes an image from a recipe; nil means Build of this package.
	Build func(ctx context.Context, dir layout.ImageDir, recipe Recipe, opt BuildOptions) (Manifest, error)
	// CanBuild says why packages cannot be had on this host; nil looks, unless
	// Build is another's.
	CanBuild func(catalog.Debian) error
	// Catalog has what can be pulled by name; nil means banger's own.
	Catalog Catalog
	// Registries is where layers come from; nil when there are none.
	Registries Registries
	// Sources make images from more kinds of origin than recipes, registries and
	// archives.
	Sources map[string]Source
	// KernelKnown says with its error that a kernel cannot be had by its name; nil
	// means that any may.
	KernelKnown func(ctx context.Context, name string) error
	// Event announces what no operation tells of: image.deleted. It must not block.
	Event func(kind, target string, data map[string]string)
	// Kernels is what bundles take kernels from; nil means that there are none.
	Kernels Kernels
	// Blobs is the cache that Prune empties; nil when there is none.
	Blobs Blobs
	// Parse gives the full form of a registry's reference; short allows Docker's
	// short names. Nil means that there are no registries.
	Parse func(ref string, short bool) (full string, err error)
}

// Manager finds, makes, deletes and lists images. Its methods may be called from
// several goroutines.
type Manager struct {
	layout  layout.Layout
	store   Store
	ops     *operation.Registry
	log     *slog.Logger
	opt     Options
	sources map[string]Source
	pulls   *pull.Puller[store.Image, api.Image]
}

// New makes a manager and registers its operations. The caller calls Recover
// before it lets anybody pull.
func New(l layout.Layout, s Store, ops *operation.Registry, log *slog.Logger, opt Options) *Manager {
	if opt.CanBuild == nil {
		opt.CanBuild = canBuild
		if opt.Build != nil {
			opt.CanBuild = func(catalog.Debian) error { return nil }
		}
	}
	if opt.Build == nil {
		opt.Build = Build
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Default == "" {
		opt.Default = DefaultName
	}
	if opt.Catalog == nil {
		opt.Catalog = catalog.Own()
	}
	m := &Manager{layout: l, store: s, ops: ops, log: log, opt: opt}
	m.sources = map[string]Source{
		FromDebian: recipes{opt},
		fromFile:   own{m}, fromImage: promotions{m},
	}
	m.sources[FromArchive] = archived{m}
	if opt.Registries != nil {
		m.sources[FromOCI] = remote{m, opt.Registries}
	}
	for kind, source := range opt.Sources {
		m.sources[kind] = source
	}
	ops.Register(operation.Kind{Name: kindBundle, OnCrash: operation.Undo, Steps: m.bundleSteps})
	m.pulls = pull.New(pull.Noun[store.Image, api.Image]{
		Name: "image", Kinds: []string{kindPull, kindImport, kindRegister, kindPromote},
		Catalog: m.entries, Known: m.known, Alias: m.alias, Plan: m.plan, End: m.endSpool, Check: m.check, Mend: mend, View: m.view,
		Dir:       func(id string) string { return l.Image(id).Dir },
		ID:        func(i store.Image) string { return i.ID },
		NameOf:    func(i *store.Image) *string { return &i.Name },
		Reference: func(i store.Image) string { return i.Reference },
		UsedID:    func(vm store.VM) string { return vm.ImageID },
		Publish:   s.PublishImage, ByID: s.Image, ByName: s.ImageByName, All: s.Images, Remove: m.remove, VMs: s.VMs,
	}, l.Staging(), ops, log)
	return m
}

// The kinds of operation.
const (
	kindPull     = "image.pull"
	kindImport   = "image.import"
	kindRegister = "image.register"
	kindPromote  = "image.promote"
)

// Recover tidies up after a daemon that died: half-made and half-deleted images.
// It is called at start, before anything is pulled or created.
func (m *Manager) Recover(ctx context.Context) error { return m.pulls.Recover(ctx) }

// Resolve gives the image a reference names: an exact name or id of one that is
// here, a name of the catalog or a registry's reference, pulled as the policy
// (missing, always, never; empty is missing) allows. A bare name is never sought
// in a registry. report, which may be nil, is told of a pull's progress.
// Cancelling ctx ends the wait, not the pull.
func (m *Manager) Resolve(ctx context.Context, ref, policy string, report pull.Report) (store.Image, error) {
	if ref == "" {
		ref = m.opt.Default
	}
	return m.pulls.Resolve(ctx, ref, policy, report)
}

// KernelAhead is the kernel that an image which is not here will want; empty for
// every other. It lets both be pulled at once.
func (m *Manager) KernelAhead(ctx context.Context, ref string) string {
	if ref == "" {
		ref = m.opt.Default
	}
	if _, err := m.pulls.Find(ctx, ref); api.KindOf(err) != api.KindNotFound {
		return ""
	}
	if bare(ref) {
		if e, err := m.opt.Catalog.Find(ctx, catalog.Images, ref); err == nil {
			return first(e.Kernel, DefaultKernel)
		}
	}
	if m.opt.Parse != nil && !bare(ref) {
		return DefaultKernel
	}
	return ""
}

// Pull begins the pull of an image: of the catalog, else from a registry.
func (m *Manager) Pull(ctx context.Context, req api.PullImage) (api.Operation, error) {
	var job pull.Job
	var err error
	if bundleFile(req.Name) {
		job, err = bundleJob(req.Name)
	} else {
		job, err = m.origin(ctx, req.Name, true)
	}
	if err != nil {
		return api.Operation{}, err
	}
	if req.PublicKey != "" {
		if job.Source.Kind != FromBundle {
			return api.Operation{}, api.Errorf(api.KindInvalid, "cannot pull image %q: a public key is for bundles that are a file or at an address", clip(req.Name)).
				WithHint("banger image pull --help")
		}
		key, err := signature.ParseKey(req.PublicKey)
		if err != nil {
			return api.Operation{}, api.Errorf(api.KindInvalid, "cannot pull image %q: %w", clip(req.Name), err).WithHint("banger image pull --help")
		}
		job.Source.With = map[string]string{withKey: key.String()}
	}
	if req.As != "" {
		if err := checkName(req.As); err != nil {
			return api.Operation{}, err
		}
		job.Name, job.Named = req.As, true
	}
	if job.Name == "" {
		return api.Operation{}, api.Errorf(api.KindInvalid, "cannot pull bundle %q: its file's name is no name for an image: give --name NAME", clip(shown(req.Name))).
			WithHint("banger image pull --help")
	}
	if err := checkPlatform(req.Platform); err != nil {
		return api.Operation{}, err
	}
	job.Force, job.Replace = req.Force, req.Replace
	return m.pulls.Begin(ctx, job)
}

// known is how to get an image without being told more than its reference.
func (m *Manager) known(ctx context.Context, ref string) (pull.Job, error) {
	return m.origin(ctx, ref, false)
}

// origin finds out what a reference names that is not here: an entry of the
// catalog or something in a registry, by a short name only where short allows.
func (m *Manager) origin(ctx context.Context, ref string, short bool) (pull.Job, error) {
	if bare(ref) {
		_, err := m.opt.Catalog.Find(ctx, catalog.Images, ref)
		if err == nil {
			return pull.Job{Name: ref, Source: pull.Source{Kind: FromCatalog, Ref: ref}}, nil
		}
		if api.KindOf(err) != api.KindNotFound {
			return pull.Job{}, err
		}
	}
	if bundleFile(ref) {
		return pull.Job{}, api.Errorf(api.KindInvalid, "cannot use image %q: a bundle is pulled first, and then used by its name", clip(shown(ref))).
			WithHint("banger image pull %s", shown(ref))
	}
	if m.opt.Parse == nil {
		return pull.Job{}, m.pulls.Unknown(ctx, ref)
	}
	full, err := m.opt.Parse(ref, short || bare(ref))
	switch {
	case err != nil && !short && bare(ref):
		return pull.Job{}, m.pulls.Unknown(ctx, ref)
	case err != nil:
		return pull.Job{}, err
	case bare(ref) && !short:
		return pull.Job{}, m.pulls.Unknown(ctx, ref).WithHint("banger image pull %s", full)
	}
	return pull.Job{Name: full, Source: pull.Source{Kind: FromOCI, Ref: full}}, nil
}

// bare says that a reference is no registry's.
func bare(ref string) bool { return !strings.ContainsAny(ref, "/:@") }

// alias is the name that a reference's image has when it was pulled under its own.
func (m *Manager) alias(ref string) string {
	if m.opt.Parse == nil {
		return ""
	}
	full, err := m.opt.Parse(ref, true)
	if err != nil {
		return ""
	}
	return full
}

// List gives the images that are here, oldest first; one that has several names
// once under each.
func (m *Manager) List(ctx context.Context) ([]api.Image, error) { return m.pulls.List(ctx) }

// Show gives one image by its exact name or id, or the reference it was pulled by.
func (m *Manager) Show(ctx context.Context, ref string) (api.Image, error) {
	return m.pulls.Show(ctx, ref)
}

// Delete forgets an image by its exact name or id, and removes its files with the
// last name. It is of kind bad-state, and names them, while VMs use it.
func (m *Manager) Delete(ctx context.Context, ref string) (api.Result, error) {
	i, gone, err := m.pulls.Delete(ctx, ref)
	if err != nil {
		return api.Result{}, err
	}
	m.deleted(i, gone)
	return api.Result{Ref: ref, ID: i.ID, OK: true, Changed: true}, nil
}

// deleted announces that a name went, or with gone an image.
func (m *Manager) deleted(i store.Image, gone bool) {
	if m.opt.Event != nil {
		m.opt.Event("image.deleted", i.ID, map[string]string{"name": i.Name, "files": strconv.FormatBool(gone)})
	}
}

// Catalog lists what can be pulled; refresh asks the catalogs for what is new.
func (m *Manager) Catalog(ctx context.Context, refresh bool) ([]api.CatalogEntry, error) {
	return m.pulls.Catalog(ctx, refresh)
}

// checkName refuses what no image can be called.
func checkName(name string) error {
	if name == "catalog" {
		return api.Errorf(api.KindInvalid, "cannot name image %q: the word means the catalog itself", name)
	}
	if err := pull.CheckName("image", name); err != nil {
		return api.AsError(err).WithHint("banger image pull --help")
	}
	return nil
}

// checkKernel refuses a kernel that an image could never boot.
func (m *Manager) checkKernel(ctx context.Context, name string) error {
	switch {
	case name == "":
		return nil
	case strings.Contains(name, "/"):
		return api.Errorf(api.KindInvalid, "cannot use kernel %q by its path: import it first, then name it", clip(name)).
			WithHint("banger kernel import %s --name mine", clip(name))
	case m.opt.KernelKnown == nil:
		return nil
	}
	return m.opt.KernelKnown(ctx, name)
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// checkPlatform refuses a platform that no machine of this host can run.
func checkPlatform(p string) error {
	if p == "" || p == "linux/"+runtime.GOARCH {
		return nil
	}
	return api.Errorf(api.KindUnsupported, "cannot pull an image for %s: machines here run linux/%s", clip(p), runtime.GOARCH).
		WithHint("banger image pull --help")
}

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/store"
)

// Catalog is where images are looked up by name; *catalog.Set is the real one.
type Catalog interface {
	List(ctx context.Context, noun catalog.Noun, refresh bool) []catalog.Item
	Find(ctx context.Context, noun catalog.Noun, name string) (catalog.Item, error)
}

// Keys of pull.Source.With.
const (
	withPackages = "packages" // of FromDebian: a catalog.Debian in JSON
	withDigest   = "digest"   // of FromBundle: sha256:… that it must have
	withSize     = "size"     // of FromBundle: about how many bytes it has
	withKey      = "key"      // of FromBundle: the public key that must have signed it
	withArch     = "arch"     // of any: the only architecture it is for
)

// sourcesOf are the sources of a catalog's entry, as operations name them.
func sourcesOf(i catalog.Item) []pull.Source {
	list := make([]pull.Source, 0, len(i.Sources))
	for _, s := range i.Sources {
		from := pull.Source{Kind: s.Kind, Ref: i.Name, With: map[string]string{}}
		switch {
		case s.Debian != nil:
			b, err := json.Marshal(s.Debian)
			if err == nil { // it came from JSON
				from.With[withPackages] = string(b)
			}
		case s.OCI != nil:
			from.Ref = s.OCI.Reference
		case s.Bundle != nil:
			from.Ref = s.Bundle.URL
			from.With[withDigest] = s.Bundle.Digest
			if s.Bundle.SizeBytes > 0 {
				from.With[withSize] = strconv.FormatInt(s.Bundle.SizeBytes, 10)
			}
			if i.Key != nil {
				from.With[withKey] = i.Key.String()
			}
		}
		if s.Arch != "" {
			from.With[withArch] = s.Arch
		}
		if len(from.With) == 0 {
			from.With = nil
		}
		list = append(list, from)
	}
	return list
}

// checkArch refuses a source that is for other hosts.
func checkArch(from pull.Source) error {
	if a := from.With[withArch]; a != "" && a != runtime.GOARCH {
		return api.Errorf(api.KindUnsupported, "cannot make an image from %s: it is for %s, and this host is %s", from.Ref, a, runtime.GOARCH)
	}
	return nil
}

// entries lists what can be pulled by name.
func (m *Manager) entries(ctx context.Context, refresh bool) ([]api.CatalogEntry, error) {
	items := m.opt.Catalog.List(ctx, catalog.Images, refresh)
	list := make([]api.CatalogEntry, 0, len(items))
	for _, i := range items {
		e := api.CatalogEntry{Name: i.Name, Description: i.Description, Catalog: i.Catalog, ShadowedBy: i.ShadowedBy, Kernel: i.Kernel, Sources: []string{}}
		var why error
		for _, s := range sourcesOf(i) {
			e.Sources = append(e.Sources, s.Kind)
			if err := m.canWork(s); err == nil {
				e.Kind = first(e.Kind, s.Kind)
			} else if why == nil {
				why = err
			}
		}
		if e.Kind == "" {
			e.Kind, e.Unsupported = e.Sources[0], why.Error()
		}
		list = append(list, e)
	}
	return list, nil
}

// canWork says why a source cannot work on this host, without asking anybody.
func (m *Manager) canWork(from pull.Source) error {
	if err := checkArch(from); err != nil {
		return err
	}
	if m.sources[from.Kind] == nil {
		return unknownKind(from)
	}
	if from.Kind != FromDebian {
		return nil
	}
	var d catalog.Debian
	if err := json.Unmarshal([]byte(from.With[withPackages]), &d); err != nil {
		return fmt.Errorf("cannot read the packages: %w", err)
	}
	return m.opt.CanBuild(d)
}

func unknownKind(from pull.Source) error {
	return api.Errorf(api.KindUnsupported, "cannot make an image from %s: this banger does not know how (%s)", from.Ref, from.Kind)
}

// planEntry looks at the sources of a catalog entry until one can be had.
func (m *Manager) planEntry(ctx context.Context, name string, report pull.Report) (pull.Plan[store.Image], error) {
	e, err := m.opt.Catalog.Find(ctx, catalog.Images, name)
	if err != nil {
		return pull.Plan[store.Image]{}, err
	}
	plan, rest, before, err := m.firstOf(ctx, sourcesOf(e), nil, report)
	if err != nil {
		return plan, err
	}
	describe, make := plan.Describe, plan.Make
	plan.Describe = func(i store.Image) store.Image {
		i = describe(i)
		i.Reference = e.Name // whichever source it was: the name is the entry's own
		if i.Kernel == "" {
			i.Kernel = e.Kernel
		}
		return i
	}
	if plan.Key == "" {
		plan.Key = "catalog " + name
	}
	plan.Make = func(ctx context.Context, dir, tempDir string, report pull.Report) (store.Image, error) {
		i, err := make(ctx, dir, tempDir, report)
		for err != nil && elsewhere(err) && len(rest) > 0 && ctx.Err() == nil {
			var next pull.Plan[store.Image]
			if next, rest, before, err = m.firstOf(ctx, rest, append(before, err), report); err != nil {
				return store.Image{}, err
			}
			if err = clearFolder(dir); err != nil {
				break
			}
			i, err = next.Make(ctx, dir, tempDir, report)
			if next.Close != nil {
				next.Close()
			}
			i = next.Describe(i)
		}
		return i, after(err, before)
	}
	return plan, nil
}

// firstOf plans the first of the sources that can work here, and gives those
// after it. before is why those that went before cannot; it grows.
func (m *Manager) firstOf(ctx context.Context, sources []pull.Source, before []error, report pull.Report) (pull.Plan[store.Image], []pull.Source, []error, error) {
	var plan pull.Plan[store.Image]
	err := error(api.Errorf(api.KindInternal, "the catalog entry has no source"))
	for i, s := range sources {
		if n := len(before); n > 0 {
			m.log.WarnContext(ctx, "source of an image cannot work on this host, trying the next", "next", s.Ref, "error", before[n-1])
			report(before[n-1].Error()+"; trying "+s.Ref, api.Progress{})
		}
		if plan, err = m.planSource(ctx, s, report); err == nil {
			return plan, sources[i+1:], before, nil
		}
		if !elsewhere(err) {
			break
		}
		if i < len(sources)-1 {
			before = append(before, err)
		}
	}
	return plan, nil, before, after(err, before)
}

// after is an error with those that went before it.
func after(err error, before []error) error {
	if err == nil || len(before) == 0 {
		return err
	}
	e := *api.AsError(err)
	for i := len(before) - 1; i >= 0; i-- {
		b := api.AsError(before[i])
		e.Message += "; before that: " + b.Message
		e.Hint = first(e.Hint, b.Hint)
	}
	return &e
}

// cannotHere marks an error that says that a source cannot work on this host.
type cannotHere struct{ error }

func (e cannotHere) Unwrap() error { return e.error }

// elsewhere says that the next source is to be tried: this one cannot work on
// this host, whatever is done. What failed on the way, a line that broke or a
// signature that is wrong, is none of that.
func elsewhere(err error) bool {
	var marked cannotHere
	return errors.As(err, &marked) || api.KindOf(err) == api.KindUnsupported
}

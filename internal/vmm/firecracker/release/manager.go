package release

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/fetch"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/vmm"
)

// The release that is fetched when the configuration names no other: the address
// of the archive and the digest of the program firecracker in it.
const (
	DefaultURL    = "https://github.com/firecracker-microvm/firecracker/releases/download/v1.12.1/firecracker-v1.12.1-x86_64.tgz"
	DefaultDigest = "sha256:b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930"
)

// kindFetch is the operation; its name lies in journals.
const kindFetch = "system.fetch-firecracker"

const (
	maxArchive = 256 << 20 // bytes; the real ones are 10 MB
	maxProgram = 64 << 20
)

// Options of a manager.
type Options struct {
	URL, Digest string // empty: the default's, both
	Client      *fetch.Client
	// Check says what version a program is, with an error for one that cannot be
	// used.
	Check func(ctx context.Context, program string) (vmm.Version, error)
}

// Manager fetches releases.
type Manager struct {
	layout layout.Layout
	ops    *operation.Registry
	opt    Options
}

// New makes a manager and registers its operation.
func New(l layout.Layout, ops *operation.Registry, opt Options) *Manager {
	m := &Manager{layout: l, ops: ops, opt: opt}
	ops.Register(operation.Kind{Name: kindFetch, OnCrash: operation.Fail, Steps: m.steps})
	return m
}

var goodDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Fetch begins the operation, whose result is the api.Firecracker.
func (m *Manager) Fetch(ctx context.Context, req api.FetchFirecracker) (api.Operation, error) {
	if req.URL == "" && req.Digest == "" {
		req.URL, req.Digest = m.opt.URL, m.opt.Digest
	}
	if req.URL == "" && req.Digest == "" {
		req.URL, req.Digest = DefaultURL, DefaultDigest
	}
	if req.URL == "" || req.Digest == "" {
		return api.Operation{}, api.Errorf(api.KindInvalid, "cannot fetch Firecracker: an address goes with the digest of the program there, and only one of the two is given").
			WithHint("banger system fetch-firecracker --help")
	}
	req.Digest = strings.ToLower(req.Digest)
	if !strings.Contains(req.Digest, ":") {
		req.Digest = "sha256:" + req.Digest
	}
	if !goodDigest.MatchString(req.Digest) {
		return api.Operation{}, api.Errorf(api.KindInvalid, "cannot fetch Firecracker: %.100q is not a digest: want sha256: and 64 hexadecimal digits", req.Digest).
			WithHint("banger system fetch-firecracker --help")
	}
	if _, err := m.opt.Client.Check(req.URL); err != nil {
		return api.Operation{}, err
	}
	op, err := m.ops.Begin(ctx, kindFetch, "firecracker", req)
	if err != nil {
		return api.Operation{}, err
	}
	return op.Snapshot(), nil
}

// work is one fetch under way.
type work struct {
	m   *Manager
	req api.FetchFirecracker
}

func (m *Manager) steps(op *operation.Op) ([]operation.Step, error) {
	w := &work{m: m}
	if err := op.Params(&w.req); err != nil {
		return nil, err
	}
	return []operation.Step{{Name: "fetch", Do: w.fetch, Undo: w.clear}}, nil
}

// staging is where the operation makes things; a starting daemon clears it.
func (w *work) staging(op *operation.Op) string {
	return filepath.Join(w.m.layout.Staging(), "firecracker-"+op.ID())
}

func (w *work) clear(_ context.Context, op *operation.Op) error {
	return os.RemoveAll(w.staging(op))
}

func (w *work) fetch(ctx context.Context, op *operation.Op) (err error) {
	to := w.m.layout.Firecracker()
	if digest, err := digestOf(to); err == nil && digest == w.req.Digest {
		return w.done(ctx, op, false)
	}
	dir := w.staging(op)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return cannot(err)
	}
	op.Stage("fetching " + w.req.URL)
	archive, program := filepath.Join(dir, "archive"), filepath.Join(dir, "firecracker")
	if err := w.m.opt.Client.File(ctx, w.req.URL, archive, maxArchive, func(done, total int64) { op.Progress(done, total, "bytes") }); err != nil {
		return err
	}
	op.Stage("checking")
	if err := extract(archive, program); err != nil {
		return err
	}
	digest, err := digestOf(program)
	if err != nil {
		return cannot(err)
	}
	if digest != w.req.Digest {
		return api.Errorf(api.KindInvalid, "cannot use the Firecracker of %s: its digest is %s, not %s", w.req.URL, digest, w.req.Digest).
			WithHint("banger config show")
	}
	if _, err := w.m.opt.Check(ctx, program); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return cannot(err)
	}
	if err := os.Rename(program, to); err != nil {
		return cannot(err)
	}
	if err := w.clear(ctx, op); err != nil {
		return cannot(err)
	}
	return w.done(ctx, op, true)
}

// done gives the result.
func (w *work) done(ctx context.Context, op *operation.Op, changed bool) error {
	v, err := w.m.opt.Check(ctx, w.m.layout.Firecracker())
	if err != nil {
		return err
	}
	return op.SetResult(api.Firecracker{Path: v.Program, Version: v.Text, Digest: w.req.Digest, URL: w.req.URL, Changed: changed})
}

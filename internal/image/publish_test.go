package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/pull"
	"github.com/bangervm/banger/internal/pull/pulltest"
	"github.com/bangervm/banger/internal/store"
)

// registry is the fake beside a real one: what its references mean, and where it
// stalls.
type registry struct {
	mu    sync.Mutex
	tags  map[string]string        // reference → content
	stall map[string]chan struct{} // reference → resolving waits for its close
	slow  map[string]chan struct{} // content → making waits for its close
	// Both are told of each that began, where there is room.
	resolving, making chan string
	made              atomic.Int32
}

func newRegistry() *registry {
	return &registry{
		tags: map[string]string{}, stall: map[string]chan struct{}{}, slow: map[string]chan struct{}{},
		resolving: make(chan string, 100), making: make(chan string, 100),
	}
}

func (r *registry) tag(ref, content string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tags[ref] = content
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func pass(ctx context.Context, gate chan struct{}) error {
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *registry) Plan(ctx context.Context, from pull.Source, _ pull.Report) (pull.Plan[store.Image], error) {
	var none pull.Plan[store.Image]
	r.resolving <- from.Ref
	r.mu.Lock()
	stall := r.stall[from.Ref]
	r.mu.Unlock()
	if err := pass(ctx, stall); err != nil {
		return none, err
	}
	r.mu.Lock()
	content, ok := r.tags[from.Ref]
	slow := r.slow[content]
	r.mu.Unlock()
	if !ok {
		return none, api.Errorf(api.KindNotFound, "cannot find %s: the registry does not have it", from.Ref)
	}
	digest := digestOf(content)
	return pull.Plan[store.Image]{
		ID: idOf(digest), Key: digest,
		Describe: func(i store.Image) store.Image {
			i.Reference, i.ReferenceDigest = from.Ref, digestOf("manifest of "+content)
			return i
		},
		Make: func(ctx context.Context, dir, _ string, report pull.Report) (store.Image, error) {
			r.made.Add(1)
			report("fetching layers", api.Progress{Done: 1, Total: 2, Unit: "bytes"})
			d := layout.ImageDir{Dir: dir}
			if err := os.WriteFile(d.RootFS(), []byte(content[:1]), 0o600); err != nil {
				return store.Image{}, err
			}
			r.making <- content
			if err := pass(ctx, slow); err != nil {
				return store.Image{}, err
			}
			if err := os.WriteFile(d.RootFS(), []byte(content), 0o600); err != nil {
				return store.Image{}, err
			}
			m := Manifest{Version: manifestVersion, Digest: digest, SizeBytes: int64(len(content)), Source: map[string]string{}, Blobs: []string{digest}}
			return m.record(KindOCI, time.Now()), pull.WriteManifest(d.Manifest(), m)
		},
	}, nil
}

// host is where the references of these tests lead.
const host = "registry.test/"

func parse(ref string, short bool) (string, error) {
	switch {
	case strings.HasPrefix(ref, host):
		return ref, nil
	case bare(ref) && short:
		return host + "library/" + ref, nil
	}
	return "", api.Errorf(api.KindInvalid, "cannot read reference %q", ref)
}

// withRegistry is a manager with a registry.
func withRegistry(t *testing.T, root string, r *registry) *fixture {
	t.Helper()
	h, b := pulltest.NewHost(t, root), &builder{}
	opt := Options{Build: b.build, Sources: map[string]Source{FromOCI: r}, Parse: parse}
	return &fixture{New(h.L, h.DB, h.Ops, h.Log, opt), h, b}
}

// begin begins a pull.
func (f *fixture) begin(t *testing.T, req api.PullImage) api.Operation {
	t.Helper()
	op, err := f.Pull(t.Context(), req)
	pulltest.Must(t, err)
	return op
}

// end waits for an operation and gives the image it made, or its error.
func (f *fixture) end(t *testing.T, op api.Operation) (api.Image, *api.Error) {
	t.Helper()
	op, err := f.Ops.Wait(t.Context(), op.ID)
	pulltest.Must(t, err)
	var i api.Image
	if op.Status == api.OperationSucceeded {
		pulltest.Must(t, json.Unmarshal(op.Result, &i))
	} else if op.Error == nil {
		t.Fatalf("operation %s without an error", op.Status)
	}
	return i, op.Error
}

func (f *fixture) pull(t *testing.T, req api.PullImage) (api.Image, *api.Error) {
	t.Helper()
	return f.end(t, f.begin(t, req))
}

func (f *fixture) mustPull(t *testing.T, req api.PullImage) api.Image {
	t.Helper()
	i, err := f.pull(t, req)
	if err != nil {
		t.Fatalf("pull of %+v: %v", req, err)
	}
	return i
}

// A registry that stalls holds its own pull for ever, and no other.
func TestPullsOfDifferentNamesNeverWait(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	r.tag(host+"stalled", "never comes")
	r.tag(host+"slow", "slow")
	r.tag(host+"app:v1", "app one")
	r.stall[host+"stalled"] = make(chan struct{})
	r.slow["slow"] = make(chan struct{})
	stalled := f.begin(t, api.PullImage{Name: host + "stalled"})
	slow := f.begin(t, api.PullImage{Name: host + "slow"})
	for range 2 {
		<-r.resolving
	}
	<-r.making
	if i := f.mustPull(t, api.PullImage{Name: host + "app:v1", As: "app"}); i.Name != "app" || !i.Changed {
		t.Errorf("%+v", i)
	}
	if _, err := f.Resolve(t.Context(), DefaultName, "", nil); err != nil {
		t.Error(err)
	}
	for _, op := range []api.Operation{stalled, slow} {
		if now, err := f.Ops.Get(t.Context(), op.ID); err != nil || now.Status != api.OperationRunning {
			t.Errorf("%s %v", now.Status, err)
		}
		pulltest.Must(t, f.Ops.Cancel(op.ID))
		if _, err := f.end(t, op); api.KindOf(err) != api.KindCancelled {
			t.Error(err)
		}
	}
	f.NothingLeft(t)
}

// Of two explicit pulls of different content to one name, one wins, whether both
// are looked up before either is made or not.
func TestTwoPullsToOneNameHaveOneWinner(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]bool{"as they come": false, "both made before either is published": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry()
			f := withRegistry(t, t.TempDir(), r)
			gate := make(chan struct{})
			for _, v := range []string{"v1", "v2"} {
				r.tag(host+"app:"+v, "app "+v)
				if hold {
					r.slow["app "+v] = gate
				}
			}
			one := f.begin(t, api.PullImage{Name: host + "app:v1", As: "same"})
			two := f.begin(t, api.PullImage{Name: host + "app:v2", As: "same"})
			if hold {
				<-r.making
				<-r.making
			}
			close(gate)
			i1, err1 := f.end(t, one)
			i2, err2 := f.end(t, two)
			if (err1 == nil) == (err2 == nil) {
				t.Fatalf("v1: %v, v2: %v", err1, err2)
			}
			won, lost := i1, err2
			if err1 != nil {
				won, lost = i2, err1
			}
			if lost.Kind != api.KindExists || lost.Hint == "" || !strings.Contains(lost.Message, `"same"`) {
				t.Errorf("the loser heard %+v", lost)
			}
			got, err := f.Show(t.Context(), "same")
			if err != nil || got.Digest != won.Digest {
				t.Errorf("%+v %v", got, err)
			}
			all, err := f.List(t.Context())
			if err != nil || len(all) != 1 {
				t.Errorf("%d images, %v", len(all), err)
			}
			dirs, err := os.ReadDir(f.L.Images())
			if err != nil || len(dirs) != 1 {
				t.Errorf("%d folders, %v", len(dirs), err)
			}
			f.NothingLeft(t)
		})
	}
}

// Pulls of the same content, asked for at once, make it once. Of the explicit ones
// each is its own: whoever cancels one cancels no other.
func TestPullsOfTheSameContentJoin(t *testing.T) {
	t.Parallel()
	for name, refs := range map[string][2]string{
		"one reference":                {"app:v1", "app:v1"},
		"two references":               {"app:v1", "app:latest"},
		"two references, one canceled": {"app:v1", "app:latest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry()
			f := withRegistry(t, t.TempDir(), r)
			r.tag(host+"app:v1", "app")
			r.tag(host+"app:latest", "app")
			gate := make(chan struct{})
			r.slow["app"] = gate
			one := f.begin(t, api.PullImage{Name: host + refs[0], As: "same"})
			<-r.making
			two := f.begin(t, api.PullImage{Name: host + refs[1], As: "same"})
			for range 2 {
				<-r.resolving
			}
			// Automatic ones join too, under the names they want.
			const n = 4
			errs := make(chan error, n)
			for range n {
				go func() {
					_, err := f.Resolve(t.Context(), host+"app:v1", "", nil)
					errs <- err
				}()
			}
			<-r.resolving // of the one that all four share
			if strings.HasSuffix(name, "canceled") {
				pulltest.Must(t, f.Ops.Cancel(one.ID))
				if _, err := f.end(t, one); api.KindOf(err) != api.KindCancelled {
					t.Error(err)
				}
				<-r.making // by one of the others
				close(gate)
				if i, err := f.end(t, two); err != nil || !i.Changed {
					t.Errorf("the other: %+v, %v", i, err)
				}
			} else {
				close(gate)
				i1, err1 := f.end(t, one)
				i2, err2 := f.end(t, two)
				if err1 != nil || err2 != nil || !i1.Changed || i2.Changed || i1.Digest != i2.Digest {
					t.Errorf("%v %v, changed %v and %v", err1, err2, i1.Changed, i2.Changed)
				}
				if made := r.made.Load(); made != 1 {
					t.Errorf("made %d times", made)
				}
			}
			for range n {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			f.NothingLeft(t)
		})
	}
}

// Whoever makes a VM from an image that is here waits for no pull.
func TestAStalledPullHoldsUpNoLocalImage(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	r.tag(host+"app:v1", "app")
	f.mustPull(t, api.PullImage{Name: host + "app:v1"})
	<-r.resolving
	r.stall[host+"app:v1"] = make(chan struct{})
	stalled := f.begin(t, api.PullImage{Name: host + "app:v1"})
	<-r.resolving
	for _, policy := range []string{"", "missing", "never"} {
		if i, err := f.Resolve(t.Context(), host+"app:v1", policy, nil); err != nil || i.Name != host+"app:v1" {
			t.Errorf("%q: %+v, %v", policy, i, err)
		}
	}
	pulltest.Must(t, f.Ops.Cancel(stalled.ID))
	_, _ = f.end(t, stalled)
}

// The same reference, pulled again later: the same content changes nothing, other
// content moves its own name and no other, and VMs keep theirs.
func TestTheSameReferenceAgain(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	ref := host + "app:v1"
	r.tag(ref, "old")
	first := f.mustPull(t, api.PullImage{Name: ref})
	f.mustPull(t, api.PullImage{Name: ref, As: "mine"})
	pulltest.Must(t, f.DB.InsertVM(t.Context(), store.VM{ID: "0011223344556677", Name: "user", ImageID: first.ID, ImageName: ref, CreatedAt: time.Now()}))
	if first.Name != ref || first.Reference != ref || first.Kind != KindOCI || first.ReferenceDigest != digestOf("manifest of old") {
		t.Errorf("%+v", first)
	}
	for _, req := range []api.PullImage{{Name: ref}, {Name: ref, As: "mine"}} {
		if again := f.mustPull(t, req); again.Changed || again.PreviousDigest != "" {
			t.Errorf("the same again: %+v", again)
		}
	}
	r.tag(ref, "new")
	if _, err := f.pull(t, api.PullImage{Name: ref, As: "mine"}); api.KindOf(err) != api.KindExists {
		t.Errorf("other content under a name that was given: %v", err)
	}
	moved := f.mustPull(t, api.PullImage{Name: ref})
	if !moved.Changed || moved.PreviousDigest != first.Digest || moved.Digest == first.Digest {
		t.Errorf("other content under its own name: %+v", moved)
	}
	if mine, err := f.Show(t.Context(), "mine"); err != nil || mine.Digest != first.Digest || !slices.Equal(mine.UsedBy, []string{"user"}) {
		t.Errorf("the name given: %+v, %v", mine, err)
	}
	replaced := f.mustPull(t, api.PullImage{Name: ref, As: "mine", Replace: true})
	if !replaced.Changed || replaced.PreviousDigest != first.Digest || replaced.Digest != moved.Digest {
		t.Errorf("replaced: %+v", replaced)
	}
	kept, err := f.Show(t.Context(), first.ID)
	if err != nil || kept.Name != "" || !slices.Equal(kept.UsedBy, []string{"user"}) {
		t.Errorf("what the VM uses: %+v, %v", kept, err)
	}
	if r.made.Load() != 2 {
		t.Errorf("made %d times", r.made.Load())
	}
}

// Two references to the same content are one image with two names; its files go
// with the last of them.
func TestTwoReferencesShareOneImage(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	r.tag(host+"app:v1", "app")
	r.tag(host+"app:latest", "app")
	one := f.mustPull(t, api.PullImage{Name: host + "app:v1"})
	two := f.mustPull(t, api.PullImage{Name: host + "app:latest", As: "app"})
	if one.ID != two.ID || !two.Changed || r.made.Load() != 1 || two.Reference != host+"app:latest" {
		t.Errorf("%+v, made %d times", two, r.made.Load())
	}
	names := func() []string {
		list, err := f.List(t.Context())
		pulltest.Must(t, err)
		got := []string{}
		for _, i := range list {
			got = append(got, i.Name)
		}
		return got
	}
	if d := cmp.Diff([]string{host + "app:v1", "app"}, names()); d != "" {
		t.Error(d)
	}
	var events []string
	f.opt.Event = func(kind, target string, data map[string]string) {
		events = append(events, kind+" "+target+" "+data["name"]+" "+data["files"])
	}
	if res, err := f.Delete(t.Context(), "app"); err != nil || !res.Changed {
		t.Error(res, err)
	}
	if d := cmp.Diff([]string{host + "app:v1"}, names()); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(f.L.Image(one.ID).RootFS()); err != nil {
		t.Error(err)
	}
	if _, err := f.Delete(t.Context(), host+"app:v1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(f.L.Image(one.ID).Dir); !os.IsNotExist(err) {
		t.Error(err)
	}
	if _, err := f.Delete(t.Context(), "app"); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"image.deleted " + one.ID + " app false", "image.deleted " + one.ID + " " + host + "app:v1 true"}, events); d != "" {
		t.Error(d)
	}
	f.NothingLeft(t)
}

// Which image a word means: a bare name never leads to a registry unasked.
func TestWhichImage(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	r.tag(host+"library/alpine", "alpine")
	r.tag(host+"team/app", "app")
	_, err := f.Resolve(t.Context(), "alpine", "", nil)
	if e := api.AsError(err); e == nil || e.Kind != api.KindNotFound || e.Hint != "banger image pull "+host+"library/alpine" {
		t.Errorf("a bare name: %+v", e)
	}
	_, err = f.Resolve(t.Context(), "debian-bokworm", "", nil)
	if e := api.AsError(err); e == nil || e.Kind != api.KindNotFound || !slices.Contains(e.Candidates, DefaultName) || !strings.Contains(e.Hint, host) {
		t.Errorf("a near name: %+v", e)
	}
	if i, err := f.Resolve(t.Context(), host+"team/app", "", nil); err != nil || i.Name != host+"team/app" {
		t.Errorf("a reference: %+v, %v", i, err)
	}
	_, err = f.Resolve(t.Context(), host+"team/none", "", nil)
	if api.KindOf(err) != api.KindNotFound || !strings.Contains(err.Error(), "the registry does not have it") {
		t.Error(err)
	}
	if _, err := f.Resolve(t.Context(), host+"team/none", "never", nil); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	// image pull takes short names; afterwards the short name is a local image's.
	if i := f.mustPull(t, api.PullImage{Name: "alpine"}); i.Name != host+"library/alpine" {
		t.Errorf("a short name: %+v", i)
	}
	if i, err := f.Resolve(t.Context(), "alpine", "never", nil); err != nil || i.Name != host+"library/alpine" {
		t.Errorf("a short name that is here: %+v, %v", i, err)
	}
	for _, bad := range []string{"Upper", "with/slash", "-x", "x-", "a_b", strings.Repeat("x", 64)} {
		if _, err := f.Pull(t.Context(), api.PullImage{Name: host + "team/app", As: bad}); api.KindOf(err) != api.KindInvalid {
			t.Errorf("name %q: %v", bad, err)
		}
	}
	if got := f.KernelAhead(t.Context(), host+"team/other"); got != DefaultKernel {
		t.Errorf("kernel ahead of a reference: %q", got)
	}
	// always asks the registry again.
	r.tag(host+"team/app", "newer app")
	if i, err := f.Resolve(t.Context(), host+"team/app", "always", nil); err != nil || i.Digest != digestOf("newer app") {
		t.Errorf("always: %+v, %v", i, err)
	}
}

// dying is a store that never comes back from a publication, before or after it.
type dying struct {
	Store
	after bool
	in    chan struct{}
	out   chan struct{}
}

func (d dying) PublishImage(ctx context.Context, i store.Image, take func(store.Image) error) error {
	if d.after {
		if err := d.Store.PublishImage(ctx, i, take); err != nil {
			return err
		}
	}
	d.in <- struct{}{}
	<-d.out
	return api.Errorf(api.KindUnavailable, "the daemon died")
}

// A daemon that dies at any point of a pull leaves nothing half-made to the next.
func TestADaemonKilledInAPullLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stall, slow, store bool
		after              bool
		whole              bool // it was published
	}{
		"while resolving":               {stall: true},
		"while making":                  {slow: true},
		"renamed, but not in the store": {store: true},
		"in the store":                  {store: true, after: true, whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, r := t.TempDir(), newRegistry()
			f := withRegistry(t, root, r)
			ref := host + "app:v1"
			r.tag(ref, "app")
			if c.stall {
				r.stall[ref] = make(chan struct{})
			}
			if c.slow {
				r.slow["app"] = make(chan struct{})
			}
			d := dying{Store: f.DB, after: c.after, in: make(chan struct{}), out: make(chan struct{})}
			if c.store {
				// A manager on the same host whose store hangs.
				f.Host.Close(t)
				h := pulltest.NewHost(t, root)
				d.Store = h.DB
				f = &fixture{New(h.L, d, h.Ops, h.Log, Options{Sources: map[string]Source{FromOCI: r}, Parse: parse}), h, f.b}
			}
			f.begin(t, api.PullImage{Name: ref})
			<-r.resolving
			switch {
			case c.slow:
				<-r.making
			case c.store:
				<-d.in
				go func() { close(d.out) }()
			}
			f.Host.Close(t) // the journal says that it runs

			r.mu.Lock()
			r.stall, r.slow = map[string]chan struct{}{}, map[string]chan struct{}{}
			r.mu.Unlock()
			f = withRegistry(t, root, r)
			pulltest.Must(t, f.Recover(t.Context()))
			pulltest.Must(t, f.Ops.Recover(t.Context()))
			ops, err := f.Ops.List(t.Context(), operation.Filter{Kind: kindPull})
			pulltest.Must(t, err)
			for _, op := range ops {
				if op, err := f.Ops.Wait(t.Context(), op.ID); err != nil || op.Status == api.OperationRunning {
					t.Errorf("%+v %v", op, err)
				}
			}
			f.NothingLeft(t)
			dirs, err := os.ReadDir(f.L.Images())
			pulltest.Must(t, err)
			want := 0
			if c.whole {
				want = 1
			}
			if list, err := f.List(t.Context()); err != nil || len(list) != want || len(dirs) != want {
				t.Errorf("%d images, %d folders, %v", len(list), len(dirs), err)
			}
			if i := f.mustPull(t, api.PullImage{Name: ref}); i.Changed == c.whole {
				t.Errorf("the next pull: %+v", i)
			}
		})
	}
}

// Deleting against the creation of a VM: the store decides, one wins; the files go
// only with the record.
func TestADeletedImageThatIsUsedStays(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	f := withRegistry(t, t.TempDir(), r)
	r.tag(host+"app:v1", "app")
	for round := range 20 {
		i := f.mustPull(t, api.PullImage{Name: host + "app:v1", As: "app"})
		id := strings.Repeat("0", 14) + string(rune('a'+round/10)) + string(rune('0'+round%10))
		var created, deleted error
		var g sync.WaitGroup
		g.Go(func() {
			created = f.DB.InsertVM(t.Context(), store.VM{ID: id, Name: "vm-" + id, ImageID: i.ID, ImageName: "app", CreatedAt: time.Now()})
		})
		g.Go(func() { _, deleted = f.Delete(t.Context(), "app") })
		g.Wait()
		_, stat := os.Stat(f.L.Image(i.ID).RootFS())
		switch {
		case created == nil && api.KindOf(deleted) == api.KindBadState && stat == nil:
			if e := api.AsError(deleted); !slices.Equal(e.Candidates, []string{"vm-" + id}) {
				t.Errorf("VMs named: %v", e.Candidates)
			}
			pulltest.Must(t, f.DB.DeleteVM(t.Context(), id))
		case deleted == nil && api.KindOf(created) == api.KindNotFound && os.IsNotExist(stat):
		default:
			t.Fatalf("create %v, delete %v, files %v", created, deleted, stat)
		}
		f.NothingLeft(t)
	}
}

// A daemon that dies between the removal of the record and that of the files
// leaves them to the next; one that died before it leaves the image whole.
func TestADaemonKilledInADeleteLeavesNothing(t *testing.T) {
	t.Parallel()
	root, r := t.TempDir(), newRegistry()
	f := withRegistry(t, root, r)
	r.tag(host+"app:v1", "app")
	r.tag(host+"app:v2", "other")
	gone := f.mustPull(t, api.PullImage{Name: host + "app:v1"})
	whole := f.mustPull(t, api.PullImage{Name: host + "app:v2"})
	for _, i := range []api.Image{gone, whole} {
		pulltest.Must(t, os.WriteFile(f.L.Image(i.ID).Dir+"/.deleted", nil, 0o600))
	}
	pulltest.Must(t, f.DB.DeleteImage(t.Context(), gone.ID))
	// A folder that only lacks a record is not touched: the store may be another.
	stranger := f.L.Image("0123456789abcdef").Dir
	pulltest.Must(t, os.Mkdir(stranger, 0o700))
	// Files that were moved aside already.
	aside := filepath.Join(f.L.Staging(), "image-deleted-fedcba9876543210")
	pulltest.Must(t, os.MkdirAll(aside, 0o700))
	pulltest.Must(t, f.Recover(t.Context()))
	if _, err := os.Stat(aside); !os.IsNotExist(err) {
		t.Errorf("what was moved aside: %v", err)
	}
	if _, err := os.Stat(f.L.Image(gone.ID).Dir); !os.IsNotExist(err) {
		t.Errorf("the deleted: %v", err)
	}
	if _, err := f.Resolve(t.Context(), host+"app:v2", "never", nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error(err)
	}
}

// archives makes images of files whose content is the image's.
type archives struct{ r *registry }

func (a archives) Plan(ctx context.Context, from pull.Source, report pull.Report) (pull.Plan[store.Image], error) {
	b, err := os.ReadFile(from.Ref)
	if err != nil {
		return pull.Plan[store.Image]{}, err
	}
	a.r.tag(from.Ref, string(b))
	return a.r.Plan(ctx, from, report)
}

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// Tools a start needs on the host.
const (
	toolMakeExt4   = "mke2fs"
	toolCheckExt4  = "e2fsck"
	toolResizeExt4 = "resize2fs"
	toolTuneExt4   = "tune2fs"
)

// boot starts the machine and waits for the guest's first answer. The caller
// holds the machine's lock. booted says that a keeper was launched: an error is
// then the boot's and the logs tell more. On an error nothing runs; the record
// is the caller's to correct.
func (m *Manager) boot(ctx context.Context, mc *machine, rec store.VM, op *operation.Op, hk *hook) (_ store.VM, booted bool, err error) {
	dir := m.d.Layout.VM(rec.ID)
	root, err := m.startable(ctx, rec, dir)
	if err != nil {
		return rec, false, err
	}
	choice, err := m.d.Accel.Choose(ctx, rec.Driver, rec.Accelerator, m.d.Layout.Kernel(rec.KernelID))
	if err != nil {
		return rec, false, err
	}
	op.Stage("preparing disks")
	token := newToken()
	spec := m.spec(rec, dir, root, choice)
	config, err := m.prepare(ctx, rec, dir, root, spec, choice.Serials, token)
	if err != nil {
		return rec, false, err
	}
	m.fromTemplate(ctx, choice.Driver, &spec, config)
	strategy := m.rootOf(rec.RootDisk)
	hold, err := strategy.open(ctx, rec.ID, root, strategy.file(dir), rec.SystemOverlayBytes, spec.Disks)
	if err != nil {
		return rec, false, err
	}
	op.Stage("booting")
	limits := m.limits(rec)
	keeper, err := m.d.Keepers.Launch(ctx, dir, Boot{
		Spec: spec, Driver: choice.Driver, Network: rec.Network, Token: token, NetworkBytesPerSecond: limits.NetworkBytesPerSecond,
	})
	_ = hold.Close() // the VMM has it, or nobody needs it
	if err != nil {
		return rec, false, both(err, strategy.release(ctx, rec.ID))
	}
	r := &running{keeper: keeper, guest: m.d.Guest(keeper), gone: make(chan struct{})}
	r.handle = handle{
		VMID: rec.ID, HostBoot: m.d.Host.BootID(), StartedAt: m.now(), Driver: choice.Driver,
		Accelerator: string(choice.Accelerator), ImageID: rec.ImageID, RootDisk: rec.RootDisk, VCPUs: rec.VCPUs, MemoryBytes: rec.MemoryBytes,
	}
	if err := m.adopt(ctx, mc, r, dir); err != nil {
		return rec, true, both(err, m.put(ctx, mc, r, causeBoot))
	}
	// While the guest boots, the disk has time for the record.
	var saved store.VM
	var g errgroup.Group
	g.Go(func() (err error) {
		if spec.Template != nil {
			if s, err := keeper.State(ctx); err == nil && s.NoTemplate != "" {
				m.d.Templates.Bad(*spec.Template, errors.New(s.NoTemplate))
				spec.Template = nil
			}
		}
		saved, err = m.d.Store.UpdateVM(ctx, rec.ID, func(v *store.VM) error {
			started := r.handle.StartedAt
			v.Status, v.StartedAt, v.StoppedAt, v.Error, v.ExitCode = api.StatusRunning, &started, nil, nil, nil
			v.UsedDriver, v.UsedAccelerator, v.AcceleratorReason = choice.Driver, string(choice.Accelerator), choice.Reason
			v.Limits = nil
			if limits != (api.VMLimits{}) {
				v.Limits = &limits
			}
			return nil
		})
		return err
	})
	answer := m.firstAnswer(ctx, mc, r, rec, hk)
	err = both(answer, g.Wait())
	if err != nil && leaving(ctx) {
		return rec, true, err
	}
	if err != nil {
		// Not when one of our verbs ended it.
		if spec.Template != nil && answer != nil && ctx.Err() == nil && mc.blamed(r) == causeNone {
			m.d.Templates.Bad(*spec.Template, err)
		}
		return rec, true, both(err, m.put(ctx, mc, r, causeBoot))
	}
	mc.update(func() { r.ready = true })
	if spec.Template == nil && m.d.Templates != nil {
		m.d.Templates.Booted(ctx, choice.Driver, spec)
	}
	if hk != nil && rec.Init == initImage { // nobody has asked yet how that went
		m.askHealth(mc, r)
	}
	started := map[string]string{"driver": choice.Driver, "accelerator": string(choice.Accelerator)}
	if spec.Template != nil {
		started["template"] = "true"
	}
	m.event("vm.started", saved, started)
	return saved, true, nil
}

// fromTemplate lets the machine go on from a guest that was booted before, where
// there is one of its kind.
func (m *Manager) fromTemplate(ctx context.Context, driver string, spec *vmm.Spec, config guestapi.Config) {
	if m.d.Templates == nil {
		return
	}
	t := m.d.Templates.For(ctx, driver, *spec)
	if t == nil {
		return
	}
	spec.Template, spec.Wake = t, &guestapi.Wake{Config: config}
}

// leaving says that ctx ended because the daemon leaves, not because somebody
// cancelled: what runs is then left running for the next one.
func leaving(ctx context.Context) bool {
	return ctx.Err() != nil && api.KindOf(context.Cause(ctx)) != api.KindCancelled
}

// startable checks everything a start needs before any of it is made, and gives
// the path of the root file system, which may be a file of the user's own.
func (m *Manager) startable(ctx context.Context, rec store.VM, dir layout.VMDir) (root string, err error) {
	tools := []string{toolMakeExt4}
	strategy := m.rootOf(rec.RootDisk)
	if rec.StartedAt == nil {
		tools = append(tools, strategy.tools()...)
	}
	if strategy.small(strategy.file(dir), rec.SystemOverlayBytes) || grows(dir.WorkDisk(), rec.DiskBytes) {
		tools = append(tools, toolCheckExt4, toolResizeExt4)
	}
	if err := m.prerequisites("start", vmTitle(rec.Name), rec.MemoryBytes, tools...); err != nil {
		return "", err
	}
	if err := m.disksWhole("start", rec, dir); err != nil {
		return "", err
	}
	image, err := m.d.Store.Image(ctx, rec.ImageID)
	if err == nil {
		root, err = m.d.Images.Usable(image)
	}
	if err != nil {
		e := api.AsError(err)
		kind := e.Kind
		if kind == api.KindNotFound { // the VM is there; what it stands on is not
			kind = api.KindBadState
		}
		return "", api.Errorf(kind, "cannot start vm %q: %w", rec.Name, err).WithHint("%s", first(e.Hint, "banger doctor"))
	}
	if _, err := os.Stat(m.d.Layout.Kernel(rec.KernelID).VMLinux()); err != nil {
		return "", api.Errorf(api.KindUnavailable, "cannot start vm %q: its kernel %s: %w", rec.Name, rec.KernelName, err).WithHint("banger doctor")
	}
	return root, nil
}

// grows says that the disk exists and is smaller than it should be.
func grows(path string, bytes int64) bool {
	n := size(path)
	return n > 0 && n < bytes
}

// prepare makes what the VMM opens: both disks at once, new ones for a VM that
// never ran, larger ones where the record wants that, and the initramfs. What it
// made in vain it removes. It gives what the initramfs tells the guest.
func (m *Manager) prepare(ctx context.Context, rec store.VM, dir layout.VMDir, base string, spec vmm.Spec, serials bool, token string) (config guestapi.Config, err error) {
	if err := safeID(rec.ID); err != nil {
		return config, err
	}
	for _, d := range []string{dir.State, dir.Run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return config, api.Errorf(diskKind(err), "cannot make folder of vm %q: %w", rec.Name, err)
		}
	}
	if err := removeFiles(dir.ExitFile(), dir.Handle(), dir.KeeperSocket(), dir.GuestSocket(), dir.BulkSocket(),
		dir.QMPSocket(), dir.LinkSocket(), dir.NetSocket()); err != nil {
		return config, api.Errorf(diskKind(err), "cannot clear folder of vm %q: %w", rec.Name, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.rootDisk(ctx, rec, dir, base) })
	g.Go(func() error { return m.workDisk(ctx, rec, dir) })
	g.Go(func() (err error) {
		if config, err = m.guestConfig(ctx, rec, spec, token); err != nil {
			return err
		}
		config.Transport = spec.Transport
		if !serials {
			// What a VMM without them shows instead is no disk's name.
			for i := range config.Disks {
				config.Disks[i].Serial = ""
			}
		}
		return m.d.Initrd(ctx, dir.Initrd(), m.d.Layout.Kernel(rec.KernelID), config)
	})
	err = g.Wait()
	return config, err
}

func (m *Manager) rootDisk(ctx context.Context, rec store.VM, dir layout.VMDir, base string) error {
	root := m.rootOf(rec.RootDisk)
	path := root.file(dir)
	if root.own() && rec.StartedAt == nil {
		// Of a start that failed: the image may have been another's since.
		if err := removeFiles(path); err != nil {
			return api.Errorf(diskKind(err), "cannot make disk of vm %q: %w", rec.Name, err)
		}
	}
	if root.small(path, rec.SystemOverlayBytes) {
		return root.grow(ctx, path, rec.SystemOverlayBytes)
	}
	whole := func() error { return m.diskWhole("start", rec, path, root.damage) }
	return m.disk(rec, path, whole, func(made string) error { return root.make(ctx, base, made, rec.SystemOverlayBytes) })
}

func (m *Manager) workDisk(ctx context.Context, rec store.VM, dir layout.VMDir) error {
	path := dir.WorkDisk()
	if grows(path, rec.DiskBytes) {
		return m.d.Host.GrowExt4(ctx, path, rec.DiskBytes)
	}
	whole := func() error { return m.workDiskWhole("start", rec, dir) }
	return m.disk(rec, path, whole, func(made string) error { return m.d.Host.MakeExt4(ctx, made, rec.DiskBytes) })
}

// disk makes a disk that is not there. It is made only for a VM that never ran: a
// later one is somebody's data, and a new one in its place would hide the loss. A
// new one is renamed into place, so that a half-made file system is never taken
// for a whole one.
func (m *Manager) disk(rec store.VM, path string, whole func() error, fill func(made string) error) error {
	if size(path) > 0 {
		return nil
	}
	if rec.StartedAt != nil {
		return whole()
	}
	made := path + ".new"
	if err := removeFiles(made); err != nil { // of a start that was cut off
		return api.Errorf(diskKind(err), "cannot make disk of vm %q: %w", rec.Name, err)
	}
	err := fill(made)
	if err == nil {
		if err = os.Rename(made, path); err == nil {
			return nil
		}
		err = api.Errorf(diskKind(err), "cannot make disk of vm %q: %w", rec.Name, err)
	}
	return both(err, removeFiles(made))
}

// readyLimit is how long a start may take until the guest answers.
func (m *Manager) readyLimit(rec store.VM, accel vmm.Accelerator) time.Duration {
	limit := m.times.Ready
	if accel == vmm.TCG {
		limit = m.times.ReadyTCG
	}
	if rec.Init == initImage {
		limit += initPatience(accel)
	}
	return limit
}

// firstAnswer waits until the guest's agent answers: with its health, or with
// what the hook of a run asks.
func (m *Manager) firstAnswer(ctx context.Context, mc *machine, r *running, rec store.VM, hk *hook) error {
	limit := m.readyLimit(rec, vmm.Accelerator(r.handle.Accelerator))
	wait, stop := r.until(ctx, limit)
	defer stop()
	guest, _ := mc.guest()
	var err error
	switch {
	case guest == nil:
		<-r.gone
	case hk != nil:
		err = hk.first(wait, guest)
	default:
		var said guestapi.Health
		said, err = health(wait, guest)
		mc.update(func() { r.health = said })
	}
	overdue := wait.Err() == context.DeadlineExceeded
	if err != nil && ctx.Err() == nil && !overdue {
		// The link may break a moment before the keeper says why.
		select {
		case <-r.gone:
		case <-time.After(2 * time.Second):
		}
	}
	select {
	case <-r.gone:
		return m.bootError(rec, "%s", fateText(r.exit, mc.blamed(r)))
	default:
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return api.Errorf(api.KindCancelled, "cannot start vm %q: %w", rec.Name, context.Cause(ctx))
	case overdue:
		e := m.bootError(rec, "the guest did not answer within %s", limit)
		e.Kind = api.KindTimeout
		return e
	}
	return err
}

// health asks until the agent answers or ctx ends; dialling waits for a guest
// that is not up, so this seldom goes round twice.
func health(ctx context.Context, g Guest) (guestapi.Health, error) {
	for {
		said, err := g.Health(ctx)
		if err == nil || api.KindOf(err) != api.KindUnavailable {
			return said, err
		}
		select {
		case <-ctx.Done():
			return said, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// bootError says why a boot failed, with the guest's own last words.
func (m *Manager) bootError(rec store.VM, format string, args ...any) *api.Error {
	why := fmt.Sprintf(format, args...)
	if said := lastWords(m.d.Layout.VM(rec.ID).ConsoleLog()); said != "" {
		why += " (console: " + said + ")"
	}
	return api.Errorf(api.KindGuest, "cannot start vm %q: %s", rec.Name, why).WithHint("banger vm logs %s --console", rec.Name)
}

// bootFailed records the failed boot and gives its error back.
func (m *Manager) bootFailed(ctx context.Context, mc *machine, rec store.VM, boot error) error {
	e := api.AsError(boot)
	saved, err := m.d.Store.UpdateVM(context.WithoutCancel(ctx), rec.ID, func(v *store.VM) error {
		now := m.now()
		v.Status, v.StoppedAt, v.Error, v.End = api.StatusStopped, &now, e, ""
		if e.Kind == api.KindCancelled { // as its owner asked
			v.Error = nil
		}
		return nil
	})
	if err != nil {
		return both(boot, err)
	}
	mc.update(func() {})
	m.event("vm.stopped", saved, map[string]string{"reason": "boot-failed", "detail": e.Message})
	return boot
}

// safeID refuses an id that is not one path element, whatever the store says.
func safeID(id string) error {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return api.Errorf(api.KindInternal, "cannot use vm id %q as a folder name", id)
	}
	return nil
}

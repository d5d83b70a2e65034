package vm

import (
	"context"
	"io"
	"os"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vmm"
)

// The root disks a VM may have; auto is overlay.
const (
	rootOverlay  = "overlay"
	rootReflink  = "reflink"
	rootSnapshot = "dm-snapshot"
)

// rootStrategy is how a VM gets a root file system of its own that begins as its
// image's. Nothing copies an image. base is the path of the image's file system,
// path the file of the VM's own that takes the changes. No method is called while
// the VM runs but check, file, small and reserve.
type rootStrategy interface {
	// check says with an error that this host cannot have such a root of that many
	// bytes.
	check(base string, bytes int64) error
	// tools are the programs that make takes.
	tools() []string
	// file is the VM's own file.
	file(dir layout.VMDir) string
	// small says that the file is there and less than a root of so many bytes takes.
	small(path string, bytes int64) bool
	// make makes the file, which is not there; on an error it is not.
	make(ctx context.Context, base, path string, bytes int64) error
	// damage says what is wrong with the file of a VM that ran before.
	damage(path string) (string, error)
	// reserve takes the room that growing will need, where it must not fail for that.
	reserve(path string, bytes int64) error
	// grow makes a root of so many bytes of a smaller one.
	grow(ctx context.Context, path string, bytes int64) error
	// disks are what the VMM shows to the guest, the image's first.
	disks(base, path string) []vmm.Disk
	// open makes what the VMM opens, where that is no file, and says so in the disks.
	// It lasts as long as the VMM has it, or hold is not closed.
	open(ctx context.Context, id, base, path string, bytes int64, disks []vmm.Disk) (hold io.Closer, err error)
	// release sees to it that nothing is left of that in the host.
	release(ctx context.Context, id string) error
	// own says that the root is one disk of the VM's own, made once from one image.
	own() bool
}

// rootOf is the strategy of that name.
func (m *Manager) rootOf(name string) rootStrategy {
	switch name {
	case rootReflink:
		return reflinkRoot{fileRoot{m.d.Host}, m.d.Layout.Staging()}
	case rootSnapshot:
		return snapshotRoot{m.d.Host, m.d.Snapshots, m.d.Layout.State}
	}
	return overlayRoot{fileRoot{m.d.Host}}
}

// chooseRoot gives the strategy for what was asked for, and why.
func chooseRoot(asked string) (name, reason string) {
	if asked == auto || asked == "" {
		return rootOverlay, "the default: it takes no privilege and nothing of the host"
	}
	return asked, "asked for"
}

// RootDisk is one kind of root disk, and why this host cannot have it; nil where
// it can.
type RootDisk struct {
	Name string
	Err  error
}

// RootDisks tries which kinds of root disk this host can have, the default first.
func (m *Manager) RootDisks() []RootDisk {
	var all []RootDisk
	for _, name := range []string{rootOverlay, rootReflink, rootSnapshot} {
		all = append(all, RootDisk{name, m.tryRoot(name)})
	}
	return all
}

func (m *Manager) tryRoot(name string) error {
	f, err := os.CreateTemp(m.d.Layout.Staging(), "image-")
	if err != nil {
		return api.Errorf(diskKind(err), "cannot make a file to try it with: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return api.Errorf(diskKind(err), "cannot make a file to try it with: %w", err)
	}
	return m.rootOf(name).check(f.Name(), minDisk)
}

// checkRoot says that a VM cannot have the root disk that it asks for.
func (m *Manager) checkRoot(r api.CreateVM, image store.Image) error {
	name, _ := chooseRoot(r.RootDisk)
	root := m.rootOf(name)
	if !root.own() {
		return nil
	}
	base, err := m.d.Images.Usable(image)
	if err != nil {
		return err
	}
	if err := root.check(base, r.SystemOverlayBytes); err != nil {
		e := *api.AsError(err)
		e.Message = "cannot give a vm the root disk " + name + ": " + e.Message
		if e.Hint == "" && e.Kind == api.KindUnsupported {
			e.Hint = "banger vm create --root-disk overlay"
		}
		return &e
	}
	return nil
}

// keepsImage refuses another image for a VM whose root disk was made of the one
// it has: what was changed in it would be lost.
func (m *Manager) keepsImage(rec store.VM) error {
	if !m.rootOf(rec.RootDisk).own() || rec.StartedAt == nil {
		return nil
	}
	return api.Errorf(api.KindUnsupported, "cannot give vm %q another image: its root disk (%s) was made of %s, and what was changed in it would be lost",
		rec.Name, rec.RootDisk, rec.ImageName).WithHint("banger vm create --image IMAGE --root-disk overlay")
}

// fits refuses a root of a fixed size that the image does not fit into.
func fits(base string, bytes int64) error {
	if n := size(base); n > bytes {
		return api.Errorf(api.KindInvalid, "the image takes %s, more than the %s of its disk", bytesText(n), bytesText(bytes)).
			WithHint("banger vm create --system-overlay-size %s", bytesText(2*n))
	}
	return nil
}

// fileRoot is what roots have in common whose own file is an ext4, sparse, that
// the VMM opens.
type fileRoot struct{ host Host }

func (fileRoot) small(path string, bytes int64) bool   { return grows(path, bytes) }
func (fileRoot) reserve(string, int64) error           { return nil }
func (fileRoot) release(context.Context, string) error { return nil }

func (r fileRoot) damage(path string) (string, error) { return ext4Damage(r.host, path) }

func (r fileRoot) grow(ctx context.Context, path string, bytes int64) error {
	return r.host.GrowExt4(ctx, path, bytes)
}

func (fileRoot) open(context.Context, string, string, string, int64, []vmm.Disk) (io.Closer, error) {
	return io.NopCloser(nil), nil
}

// overlayRoot lays a disk of the VM's own over the image in the guest.
type overlayRoot struct{ fileRoot }

func (overlayRoot) check(string, int64) error    { return nil }
func (overlayRoot) tools() []string              { return nil }
func (overlayRoot) file(dir layout.VMDir) string { return dir.SystemDisk() }
func (overlayRoot) own() bool                    { return false }

func (r overlayRoot) make(ctx context.Context, _, path string, bytes int64) error {
	return r.host.MakeExt4(ctx, path, bytes)
}

func (overlayRoot) disks(base, path string) []vmm.Disk {
	return []vmm.Disk{
		{Path: base, Serial: guestapi.RoleRoot, ReadOnly: true},
		{Path: path, Serial: guestapi.RoleSystem},
	}
}

// ownTools are what makes an image's file system a VM's own.
func ownTools() []string { return []string{toolTuneExt4, toolCheckExt4, toolResizeExt4} }

// reflinkRoot is a copy of the image that shares all blocks with it which were
// not changed, where the host's file system can do that.
type reflinkRoot struct {
	fileRoot
	beside string // a folder of the file system that the VMs' disks are on
}

func (r reflinkRoot) check(base string, bytes int64) error {
	if err := fits(base, bytes); err != nil {
		return err
	}
	return r.host.CanClone(base, r.beside)
}

func (reflinkRoot) tools() []string              { return ownTools() }
func (reflinkRoot) file(dir layout.VMDir) string { return dir.RootDisk() }
func (reflinkRoot) own() bool                    { return true }

func (r reflinkRoot) make(ctx context.Context, base, path string, bytes int64) error {
	return r.host.CloneExt4(ctx, base, path, bytes)
}

func (reflinkRoot) disks(_, path string) []vmm.Disk {
	return []vmm.Disk{{Path: path, Serial: guestapi.RoleRoot}}
}

// snapshotRoot is a device of the kernel's that reads as the image and keeps what
// is written in a file of the VM's own. The device is there while the VM runs.
type snapshotRoot struct {
	host      Host
	snapshots Snapshots
	state     string // the folder whose file system the changes are kept on
}

func (r snapshotRoot) check(base string, bytes int64) error {
	if err := fits(base, bytes); err != nil {
		return err
	}
	if err := r.snapshots.Check(); err != nil {
		return err
	}
	if err := r.snapshots.CheckFolder(r.state); err != nil {
		return err
	}
	free, err := r.host.FreeDisk(r.state)
	if err != nil {
		return err
	}
	if want := r.snapshots.ChangesSize(bytes) + minFree; free < want {
		return api.Errorf(api.KindNoSpace, "it takes all of its room at once, %s, and %s are free in %s", bytesText(want), bytesText(free), r.state).
			WithHint("banger vm create --system-overlay-size 1G")
	}
	return nil
}

func (snapshotRoot) tools() []string              { return ownTools() }
func (snapshotRoot) file(dir layout.VMDir) string { return dir.RootChanges() }
func (snapshotRoot) own() bool                    { return true }

func (r snapshotRoot) small(path string, bytes int64) bool {
	return grows(path, r.snapshots.ChangesSize(bytes))
}

func (r snapshotRoot) make(_ context.Context, _, path string, bytes int64) error {
	return r.snapshots.MakeChanges(path, bytes)
}

func (r snapshotRoot) damage(path string) (string, error) { return r.snapshots.Damage(path) }

func (r snapshotRoot) reserve(path string, bytes int64) error {
	return r.snapshots.GrowChanges(path, bytes, true)
}

// grow leaves the file system to open, which has the device.
func (r snapshotRoot) grow(_ context.Context, path string, bytes int64) error {
	return r.snapshots.GrowChanges(path, bytes, false)
}

func (snapshotRoot) disks(string, string) []vmm.Disk {
	return []vmm.Disk{{Serial: guestapi.RoleRoot, Block: true}}
}

func (r snapshotRoot) open(ctx context.Context, id, base, path string, bytes int64, disks []vmm.Disk) (io.Closer, error) {
	device, hold, err := r.snapshots.Open(ctx, id, base, path, bytes)
	if err != nil {
		return nil, err
	}
	if err := r.host.OwnExt4(ctx, device, bytes); err != nil {
		_ = hold.Close() // the device goes with it
		return nil, both(err, r.release(ctx, id))
	}
	disks[0].Path = device
	return hold, nil
}

func (r snapshotRoot) release(ctx context.Context, id string) error {
	return r.snapshots.Release(context.WithoutCancel(ctx), id)
}

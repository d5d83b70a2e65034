package mapper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// Mapper makes snapshots for the owners in one folder of state.
type Mapper struct {
	control, loops, dev string
	state               string        // tells our devices from those of another root
	patience            time.Duration // for users of a device that is to go
	// fault, in tests, fails the step of that name.
	fault func(step string) error
}

// New makes a mapper for the owners whose state lies in that folder. It touches
// nothing.
func New(state string) *Mapper {
	sum := sha256.Sum256([]byte(state))
	return &Mapper{
		control: "/dev/mapper/control", loops: "/dev/loop-control", dev: "/dev",
		state: hex.EncodeToString(sum[:6]), patience: 10 * time.Second,
	}
}

func (m *Mapper) step(name string) error {
	if m.fault == nil {
		return nil
	}
	return m.fault(name)
}

// Check says with an error why this process cannot make snapshots here.
func (m *Mapper) Check() error {
	if os.Geteuid() != 0 {
		return api.Errorf(api.KindUnsupported, "cannot use device-mapper: that takes root")
	}
	for _, path := range []string{m.control, m.loops} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			err = errors.New("this host has no " + path)
		}
		if err != nil {
			return api.Errorf(api.KindUnsupported, "cannot use device-mapper: %w", err).WithHint("sudo modprobe -a dm_snapshot loop")
		}
		f.Close()
	}
	for _, kind := range []string{"linear", "zero", "snapshot"} {
		if err := m.hasTarget(kind); err != nil {
			return api.Errorf(api.KindUnsupported, "cannot use device-mapper: the kernel has no target %s: %w", kind, err).
				WithHint("sudo modprobe -a dm_zero dm_snapshot")
		}
	}
	return nil
}

// names are the names and UUIDs of an owner's two devices: the file with the
// zeros, and the snapshot of it.
type names struct{ base, baseUUID, snapshot, snapshotUUID string }

func (m *Mapper) names(owner string) names {
	uuid := "BANGER-" + m.state + "-" + owner
	return names{base: "banger-" + owner + "-base", baseUUID: uuid + "-base", snapshot: "banger-" + owner, snapshotUUID: uuid}
}

// Device is a snapshot in use.
type Device struct {
	Path string
	f    *os.File
}

// Close gives up our use of the device. It goes with its last user.
func (d *Device) Close() error { return d.f.Close() }

// Open makes the owner's device: of so many bytes, base at its beginning, with
// changes kept in the file changes, which MakeChanges made. The device lasts until
// all who have it open have closed it, the caller with Close. On an error nothing is
// left. A device of before that nobody uses is removed first; one that is in use is
// an error of kind busy, one that is somebody else's of kind exists.
func (m *Mapper) Open(ctx context.Context, owner, base, changes string, bytes int64) (_ *Device, err error) {
	fail := func(err error) error {
		e := api.AsError(err)
		kind := e.Kind
		if errors.Is(err, unix.ENOMEM) {
			kind = api.KindUnavailable
		}
		return api.Errorf(kind, "cannot make the snapshot of %s: %w", base, err).WithHint("%s", e.Hint)
	}
	if err := m.Release(ctx, owner); err != nil {
		return nil, err
	}
	n := m.names(owner)
	for _, name := range []string{n.base, n.snapshot} {
		if s, err := m.byName(name); err == nil {
			return nil, fail(taken(s))
		} else if !gone(err) {
			return nil, fail(err)
		}
	}
	var undo []func() error
	defer func() {
		for i := len(undo) - 1; i >= 0; i-- {
			if uerr := undo[i](); err != nil {
				err = errors.Join(err, uerr)
			}
		}
		if err != nil {
			err = fail(err)
		}
	}()
	// Their devices keep the loops, once there are any: ours are closed in any case.
	below, baseSectors, err := m.loopOf(base, n.base, true)
	if err != nil {
		return nil, err
	}
	undo = append(undo, below.Close)
	above, _, err := m.loopOf(changes, n.snapshot, false)
	if err != nil {
		return nil, err
	}
	undo = append(undo, above.Close)

	sectors := uint64(bytes) / sectorSize
	if sectors < baseSectors {
		return nil, api.Errorf(api.KindInvalid, "%d bytes are less than it has", bytes)
	}
	belowNumber, err := number(below)
	if err != nil {
		return nil, err
	}
	aboveNumber, err := number(above)
	if err != nil {
		return nil, err
	}
	pieces := []target{{sectors: baseSectors, kind: "linear", params: belowNumber + " 0"}}
	if sectors > baseSectors {
		pieces = append(pieces, target{start: baseSectors, sectors: sectors - baseSectors, kind: "zero"})
	}
	origin, err := m.create(n.base, n.baseUUID, true, pieces)
	if err != nil {
		return nil, err
	}
	made := false
	undo = append(undo, func() error {
		if made {
			return nil
		}
		return m.Release(context.WithoutCancel(ctx), owner)
	})
	s, err := m.create(n.snapshot, n.snapshotUUID, false, []target{{
		sectors: sectors, kind: "snapshot", params: fmt.Sprintf("%s %s PO %d", origin.majorMinor(), aboveNumber, chunk/sectorSize),
	}})
	if err != nil {
		return nil, err
	}
	if err := m.step("open " + n.snapshot); err != nil {
		return nil, err
	}
	path := filepath.Join(m.dev, fmt.Sprintf("dm-%d", unix.Minor(s.dev)))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	for _, uuid := range []string{n.snapshotUUID, n.baseUUID} {
		err := m.step("mark " + uuid)
		if err == nil {
			err = m.removeWithTheLast(uuid)
		}
		if err != nil {
			undo = append(undo, f.Close)
			return nil, err
		}
	}
	made = true
	return &Device{Path: path, f: f}, nil
}

func taken(s status) error {
	what := "there is a device of the name " + s.name
	if s.uuid != "" {
		what += ", with the UUID " + s.uuid
	}
	return api.Errorf(api.KindExists, "%s, which is not ours and is left alone", what).WithHint("sudo dmsetup info %s", s.name)
}

// loopOf opens the file and makes a loop device of it.
func (m *Mapper) loopOf(path, label string, readOnly bool) (_ *os.File, sectors uint64, err error) {
	how := os.O_RDWR
	if readOnly {
		how = os.O_RDONLY
	}
	f, err := os.OpenFile(path, how, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() // the loop device has its own
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	loop, err := m.loop(f, label, readOnly)
	return loop, uint64(fi.Size()) / sectorSize, err
}

// Release removes the owner's device, once nobody uses it any more. One that is
// not there is success.
func (m *Mapper) Release(ctx context.Context, owner string) error {
	n := m.names(owner)
	ctx, cancel := context.WithTimeout(ctx, m.patience)
	defer cancel()
	for _, d := range []struct{ name, uuid string }{{n.snapshot, n.snapshotUUID}, {n.base, n.baseUUID}} {
		for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
			err := m.remove(d.uuid)
			if err == nil {
				// With the mark on it the kernel may be at it itself.
				if _, err = m.byUUID(d.uuid); gone(err) {
					break
				}
			}
			if errors.Is(err, os.ErrNotExist) {
				return nil // no device-mapper, no devices
			}
			if err != nil && !errors.Is(err, unix.EBUSY) {
				return api.Errorf(api.KindInternal, "cannot remove the device %s: %w", d.name, err).WithHint("sudo dmsetup info %s", d.name)
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return api.Errorf(api.KindBusy, "cannot remove the device %s: it is in use", d.name).WithHint("sudo dmsetup info %s", d.name)
			}
		}
	}
	return nil
}

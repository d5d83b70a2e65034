package mapper

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/host/hosttest"
)

const mib = 1 << 20

// TestMain is also the process that is killed in TestKilledAtEachStep.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BANGER_MAPPER_CHILD"); dir != "" {
		child(dir, os.Getenv("BANGER_MAPPER_STEP"))
	}
	os.Exit(m.Run())
}

// child opens the device, says at which steps it is, and stands still at that one.
func child(dir, still string) {
	m := New(dir)
	m.fault = func(step string) error {
		fmt.Println(step)
		if step == still {
			_ = unix.Pause()
		}
		return nil
	}
	if _, err := m.Open(context.Background(), "vm", dir+"/base", dir+"/changes", 64*mib); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("open")
	_ = unix.Pause()
}

// scene is a base and the file for the changes of it, and what is in the base.
type scene struct {
	*Mapper
	t             *testing.T
	dir           string
	base, changes string
	content       []byte
}

func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneIn(t, t.TempDir())
}

func newSceneIn(t *testing.T, dir string) *scene {
	t.Helper()
	s := &scene{Mapper: New(dir), t: t, dir: dir, base: dir + "/base", changes: dir + "/changes", content: make([]byte, 8*mib)}
	if err := s.Check(); err != nil {
		t.Skipf("make lab TEST=./internal/host/mapper runs it: %v", err)
	}
	_, _ = rand.Read(s.content) // never fails
	if err := os.WriteFile(s.base, s.content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.MakeChanges(s.changes, 64*mib); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.nothingLeft() })
	return s
}

func (s *scene) open(bytes int64) *Device {
	s.t.Helper()
	d, err := s.Open(s.t.Context(), "vm", s.base, s.changes, bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// devices are those of the scene: device-mapper's by name, loop devices by file.
func (s *scene) devices() []string {
	s.t.Helper()
	var found []string
	n := s.names("vm")
	for _, name := range []string{n.base, n.snapshot} {
		if st, err := s.byName(name); err == nil {
			found = append(found, fmt.Sprintf("%s (%s)", name, st.uuid))
		} else if !gone(err) {
			s.t.Error(err)
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range loops {
		if file, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(file), s.dir+"/") {
			found = append(found, path+" of "+strings.TrimSpace(string(file)))
		}
	}
	return found
}

// nothingLeft waits a moment: the kernel lets go of things in the background.
func (s *scene) nothingLeft() {
	s.t.Helper()
	var left []string
	for range 200 {
		if left = s.devices(); len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Errorf("left: %q", left)
	_ = s.Release(context.Background(), "vm")
}

func readAt(t *testing.T, path string, at int64, n int) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b
}

func writeAt(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, at)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotOfAFile(t *testing.T) {
	s := newScene(t)
	d := s.open(64 * mib)
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Seek(0, io.SeekEnd); n != 64*mib || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	f.Close()
	if !bytes.Equal(readAt(t, d.Path, 0, 8*mib), s.content) || !bytes.Equal(readAt(t, d.Path, 8*mib, 56*mib), make([]byte, 56*mib)) {
		t.Error("it does not read as the file and zeros behind it")
	}
	word := []byte("written")
	for _, at := range []int64{0, 5*mib + 3, 8*mib - 3, 64*mib - 7} {
		writeAt(t, d.Path, at, word)
	}
	if len(s.devices()) != 4 {
		t.Errorf("two devices over two loops, not %q", s.devices())
	}
	// Who has it open keeps it, though we gave it up: that is a VMM.
	user, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if len(s.devices()) != 4 {
		t.Errorf("gone from under its user: %q", s.devices())
	}
	user.Close()
	s.nothingLeft()
	if damage, err := s.Damage(s.changes); damage != "" || err != nil {
		t.Error(damage, err)
	}

	// What was written is kept, also in a larger one, and the base is as it was.
	if err := s.GrowChanges(s.changes, 96*mib, true); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(s.changes); err != nil || fi.Size() != ChangesSize(64*mib) {
		t.Errorf("a file in use was made larger: %v, %v", fi.Size(), err)
	}
	if err := s.GrowChanges(s.changes, 96*mib, false); err != nil {
		t.Fatal(err)
	}
	d = s.open(96 * mib)
	for _, at := range []int64{0, 5*mib + 3, 8*mib - 3, 64*mib - 7} {
		if got := readAt(t, d.Path, at, len(word)); !bytes.Equal(got, word) {
			t.Errorf("at %d there is %q", at, got)
		}
	}
	writeAt(t, d.Path, 96*mib-7, word)
	if got := readAt(t, d.Path, 64*mib, 16); !bytes.Equal(got, make([]byte, 16)) {
		t.Errorf("the new part begins with %q", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), "vm"); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadFile(s.base); err != nil || !bytes.Equal(now, s.content) {
		t.Errorf("the base was changed, %v", err)
	}
}

// steps are all there are in making a device.
func (s *scene) steps() []string {
	s.t.Helper()
	var steps []string
	s.fault = func(step string) error { steps = append(steps, step); return nil }
	if err := s.open(64 * mib).Close(); err != nil {
		s.t.Fatal(err)
	}
	s.fault = nil
	s.nothingLeft()
	if len(steps) != 11 {
		s.t.Fatalf("%d steps: %q", len(steps), steps)
	}
	return steps
}

func TestFaultAtEachStep(t *testing.T) {
	s := newScene(t)
	broken := errors.New("broken on purpose")
	for _, step := range s.steps() {
		s.fault = func(now string) error {
			if now == step {
				return broken
			}
			return nil
		}
		if d, err := s.Open(t.Context(), "vm", s.base, s.changes, 64*mib); !errors.Is(err, broken) || d != nil {
			t.Errorf("%s: %v", step, err)
		}
		s.nothingLeft()
		s.fault = nil
		d := s.open(64 * mib)
		if got := readAt(t, d.Path, 0, mib); !bytes.Equal(got, s.content[:mib]) {
			t.Errorf("after a fault at %s it reads as something else", step)
		}
		d.Close()
		s.nothingLeft()
	}
}

// A process that makes a device is killed at each step, and when it has it: what
// the kernel does not take back itself, the next who asks for it does.
func TestKilledAtEachStep(t *testing.T) {
	s := newScene(t)
	for _, step := range append(s.steps(), "open") {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "BANGER_MAPPER_CHILD="+s.dir, "BANGER_MAPPER_STEP="+step)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == step {
				break
			}
		}
		if step == "open" {
			if len(s.devices()) != 4 {
				t.Errorf("open: %q", s.devices())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if step == "open" {
			s.nothingLeft() // with nobody's help
		}
		d := s.open(64 * mib) // takes back what is left, and so does Release
		if got := readAt(t, d.Path, 0, mib); !bytes.Equal(got, s.content[:mib]) {
			t.Errorf("after a kill at %s it reads as something else", step)
		}
		d.Close()
		if err := s.Release(t.Context(), "vm"); err != nil {
			t.Errorf("killed at %s: %v", step, err)
		}
		s.nothingLeft()
	}
}

// A device of the name we would give is somebody else's unless its UUID is ours.
func TestANameThatIsSomebodyElses(t *testing.T) {
	s := newScene(t)
	n := s.names("vm")
	for _, c := range []struct{ name, uuid string }{
		{n.snapshot, "SOMEBODY-ELSE"}, {n.base, "SOMEBODY-ELSE"}, {n.snapshot, ""},
	} {
		if _, err := s.do(unix.DM_DEV_CREATE, request{name: c.name, uuid: c.uuid}); err != nil {
			t.Fatal(err)
		}
		by := request{name: c.name}
		if _, err := s.do(unix.DM_TABLE_LOAD, request{name: c.name, targets: []target{{sectors: 2048, kind: "zero"}}}); err != nil {
			t.Fatal(err)
		}
		before, err := s.do(unix.DM_DEV_SUSPEND, request{name: c.name, event: udevHandsOff})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Open(t.Context(), "vm", s.base, s.changes, 64*mib)
		e := api.AsError(err)
		if e.Kind != api.KindExists || !strings.Contains(e.Message, c.name+", ") && !strings.Contains(e.Message, c.name+",") || e.Hint != "sudo dmsetup info "+c.name {
			t.Errorf("%s: %+v", c.name, e)
		}
		if err := s.Release(t.Context(), "vm"); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		after, err := s.byName(c.name)
		if err != nil || after != before {
			t.Errorf("%s was touched: %+v, then %+v, %v", c.name, before, after, err)
		}
		if _, err := s.do(unix.DM_DEV_REMOVE, by); err != nil {
			t.Fatal(err)
		}
		s.nothingLeft()
	}
	// Nor are the devices of another root ours.
	other := New(s.dir + "/other")
	d := s.open(64 * mib)
	if err := other.Release(t.Context(), "vm"); err != nil {
		t.Error(err)
	}
	if _, err := other.Open(t.Context(), "vm", s.base, s.changes, 64*mib); api.KindOf(err) != api.KindExists {
		t.Error(err)
	}
	if len(s.devices()) != 4 {
		t.Errorf("another root's were touched: %q", s.devices())
	}
	d.Close()
}

// smallDisk is the folder of an ext4 of that size, which the changes lie on.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	hosttest.Ext4(t, dir, size)
	return dir
}

// A snapshot that grows to its full size on a full disk loses nothing: its room
// was laid aside.
func TestAFullDiskUnderAGrowingSnapshot(t *testing.T) {
	s := newSceneIn(t, smallDisk(t, 160*mib))
	hosttest.Fill(t, s.dir)
	d := s.open(64 * mib)
	t.Cleanup(func() { d.Close() })
	all := make([]byte, 64*mib)
	_, _ = rand.Read(all) // never fails
	writeAt(t, d.Path, 0, all)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	s.nothingLeft()
	d = s.open(64 * mib)
	if !bytes.Equal(readAt(t, d.Path, 0, 64*mib), all) {
		t.Error("something was lost")
	}
	d.Close()
	s.nothingLeft()
}

// Room that is not there is told, and what was laid aside in vain is given back.
func TestRoomThatIsNotThere(t *testing.T) {
	dir := smallDisk(t, 160*mib)
	m, changes := New(dir), dir+"/changes"
	if err := m.MakeChanges(changes, 64*mib); err != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		t.Helper()
		unix.Sync()
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bfree) * st.Bsize
	}
	before := free()
	for _, used := range []bool{false, true} {
		err := m.GrowChanges(changes, 256*mib, used)
		if fi, serr := os.Stat(changes); api.KindOf(err) != api.KindNoSpace || api.AsError(err).Hint == "" || serr != nil || fi.Size() != ChangesSize(64*mib) {
			t.Errorf("used %v: %v, then %v, %v", used, err, fi.Size(), serr)
		}
		if now := free(); now < before-mib {
			t.Errorf("used %v: %d bytes are still taken", used, before-now)
		}
	}
	if err := m.MakeChanges(dir+"/more", 256*mib); api.KindOf(err) != api.KindNoSpace {
		t.Error(err)
	}
	if _, err := os.Lstat(dir + "/more"); !errors.Is(err, fs.ErrNotExist) || free() < before-mib {
		t.Errorf("something was left: %v", err)
	}
}

// A host with no loop device left, as a container is that was given eight: the
// kernel names one more, which is not there.
func TestNoLoopDeviceLeft(t *testing.T) {
	s := newScene(t)
	s.dev = t.TempDir()
	_, err := s.Open(t.Context(), "vm", s.base, s.changes, 64*mib)
	if e := api.AsError(err); e.Kind != api.KindUnavailable || !strings.Contains(e.Message, "cannot get a free loop device") || e.Hint != "sudo losetup -a" {
		t.Errorf("%+v", e)
	}
	s.nothingLeft()
	s.dev, s.loops = "/dev", s.dir+"/no-loop-control"
	_, err = s.Open(t.Context(), "vm", s.base, s.changes, 64*mib)
	if e := api.AsError(err); e.Kind != api.KindUnsupported || e.Hint != "sudo modprobe loop" {
		t.Errorf("%+v", e)
	}
	if err := s.Check(); api.KindOf(err) != api.KindUnsupported {
		t.Error(err)
	}
	s.nothingLeft()
}

func TestADeviceInUse(t *testing.T) {
	s := newScene(t)
	s.patience = 100 * time.Millisecond
	d := s.open(64 * mib)
	err := s.Release(t.Context(), "vm")
	if e := api.AsError(err); e.Kind != api.KindBusy || e.Hint != "sudo dmsetup info banger-vm" {
		t.Errorf("%+v", e)
	}
	if _, err := s.Open(t.Context(), "vm", s.base, s.changes, 64*mib); api.KindOf(err) != api.KindBusy {
		t.Error(err)
	}
	if !bytes.Equal(readAt(t, d.Path, 0, mib), s.content[:mib]) {
		t.Error("the device in use was harmed")
	}
	d.Close()
	s.nothingLeft()
	if _, err := s.Open(t.Context(), "vm", s.base, s.changes, 4*mib); api.KindOf(err) != api.KindInvalid {
		t.Error(err)
	}
	if _, err := s.Open(t.Context(), "vm", s.dir+"/none", s.changes, 64*mib); err == nil || !slices.Equal(s.devices(), nil) {
		t.Errorf("%v, %q", err, s.devices())
	}
}

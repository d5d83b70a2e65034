package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// Ours is the folder that groups are made in, below a group that we may write
// to; leafOfOurs takes our own processes where they are in the way there: a
// group has processes or groups with limits, never both.
const (
	Ours       = "banger"
	leafOfOurs = "banger-daemon"
)

// controllers are what limits need, the most important first.
func controllers() []string { return []string{"memory", "pids", "cpu", "io"} }

// Place is a folder of the tree in which we may make groups.
type Place struct {
	dir  string   // …/banger
	have []string // the controllers that groups in it get
}

// Missing are the controllers that groups here do not have.
func (p Place) Missing() []string {
	var out []string
	for _, c := range controllers() {
		if !slices.Contains(p.have, c) {
			out = append(out, c)
		}
	}
	return out
}

// tree is the host's groups as this process sees them.
type tree struct {
	mount string // of cgroup2
	own   string // our own group's folder
}

// Find gives the place where this process may make groups, and prepares it. An
// error is of kind unsupported and says why there is none.
func Find() (Place, error) {
	t, err := look()
	if err != nil {
		return Place{}, err
	}
	var why error
	for _, dir := range t.candidates(os.Geteuid()) {
		p, err := prepare(dir)
		if err == nil {
			return p, nil
		}
		why = better(why, err)
	}
	return Place{}, why
}

// better is the reason of the two that tells more: a folder that is ours to write
// to, and yet of no use, before one that is not ours, and ours before its parents.
func better(a, b error) error {
	if a == nil || errors.Is(a, os.ErrPermission) && !errors.Is(b, os.ErrPermission) {
		return b
	}
	return a
}

// Check says whether there is such a place, and changes nothing.
func Check() error {
	t, err := look()
	if err != nil {
		return err
	}
	var why error
	for _, dir := range t.candidates(os.Geteuid()) {
		err := usable(dir)
		if err == nil {
			return nil
		}
		why = better(why, err)
	}
	return why
}

// Remove takes away the groups of that name in every place they could have been
// made in, with all that runs in them. None is no error.
func Remove(name string) error {
	t, err := look()
	if err != nil {
		return nil // where there are no groups there is none of ours
	}
	var errs []error
	for _, dir := range t.candidates(os.Geteuid()) {
		g := &Group{dir: filepath.Join(dir, Ours, name)}
		errs = append(errs, g.Remove())
	}
	return errors.Join(errs...)
}

func look() (tree, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return tree{}, unsupported("cannot see the host's control groups: %w", err)
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return tree{}, unsupported("cannot see our control group: %w", err)
	}
	return parse(mounts, groups)
}

func unsupported(format string, args ...any) error {
	return api.Errorf(api.KindUnsupported, format, args...)
}

// parse reads /proc/self/mountinfo and /proc/self/cgroup.
func parse(mounts, groups []byte) (tree, error) {
	var t tree
	root, old := "", false
	for line := range strings.Lines(string(mounts)) {
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 1 {
			continue
		}
		switch kind[0] {
		case "cgroup":
			old = true
		case "cgroup2":
			if t.mount == "" {
				root, t.mount = unescape(fields[3]), unescape(fields[4])
			}
		}
	}
	switch {
	case t.mount == "" && old:
		return t, unsupported("this host has control groups of version 1 only")
	case t.mount == "":
		return t, unsupported("this host has no control groups (version 2)")
	case old:
		return t, unsupported("this host's controllers belong to control groups of version 1")
	}
	for line := range strings.Lines(string(groups)) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::/")
		if !ok {
			continue
		}
		own, err := filepath.Rel(root, "/"+path)
		if err != nil || !filepath.IsLocal(own) || strings.HasPrefix(path, "..") || strings.HasPrefix(root, "/..") {
			break // our group is not below what is mounted
		}
		t.own = filepath.Join(t.mount, own)
	}
	return t, nil
}

// unescape reads the octal escapes of a path in mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// candidates are the folders to try in turn: for root the top of the tree, then
// our own group and those above it.
func (t tree) candidates(euid int) []string {
	if t.own == "" {
		return []string{t.mount}
	}
	var out []string
	if euid == 0 {
		out = append(out, t.mount)
	}
	dir := t.own
	if filepath.Base(dir) == leafOfOurs {
		dir = filepath.Dir(dir)
	}
	for ; strings.HasPrefix(dir, t.mount); dir = filepath.Dir(dir) {
		if !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// usable says why no groups can be made in the folder.
func usable(dir string) error {
	for _, name := range []string{".", "cgroup.procs", "cgroup.subtree_control"} {
		if err := unix.Access(filepath.Join(dir, name), unix.W_OK); err != nil {
			return unsupported("no part of the control groups is delegated to this user: cannot write to %s: %w", filepath.Join(dir, name), err)
		}
	}
	offered := offers(dir)
	if !slices.Contains(offered, "memory") && !slices.Contains(offered, "pids") {
		return unsupported("the control group %s has no controllers for memory and processes", dir)
	}
	return nil
}

// offers are the controllers that a folder's groups could have.
func offers(dir string) []string { return words(filepath.Join(dir, "cgroup.controllers")) }

func words(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// prepare makes the folder of ours below dir, and switches controllers on.
func prepare(dir string) (Place, error) {
	if err := usable(dir); err != nil {
		return Place{}, err
	}
	// Of the controllers some may be switched on beside processes, and make of the
	// group one that cannot have the others. The top of the tree, which alone has no
	// type, is free in this.
	var err error
	if _, top := os.Stat(filepath.Join(dir, "cgroup.type")); top == nil {
		err = makeRoom(dir)
	}
	if err == nil {
		err = enable(dir)
	}
	if err != nil {
		return Place{}, unsupported("cannot have limits in the control group %s: %w", dir, err)
	}
	p := Place{dir: filepath.Join(dir, Ours)}
	if err := p.make(); err != nil {
		return Place{}, unsupported("cannot make the control group %s: %w", p.dir, err)
	}
	p.have = words(filepath.Join(p.dir, "cgroup.subtree_control"))
	if !slices.Contains(p.have, "memory") && !slices.Contains(p.have, "pids") {
		return Place{}, unsupported("the control group %s gives no controllers for memory and processes", dir)
	}
	return p, nil
}

// make makes the folder; others may be removing it, as it is empty.
func (p Place) make() error {
	for try := 0; ; try++ {
		if err := os.Mkdir(p.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		err := enable(p.dir)
		if !errors.Is(err, os.ErrNotExist) || try == 10 {
			return err
		}
	}
}

// enable switches the controllers on that the groups in dir can have. Those that
// cannot be had are missing; the error is of a group that has processes.
func enable(dir string) error {
	on := words(filepath.Join(dir, "cgroup.subtree_control"))
	for _, c := range offers(dir) {
		if !slices.Contains(controllers(), c) || slices.Contains(on, c) {
			continue
		}
		err := write(filepath.Join(dir, "cgroup.subtree_control"), "+"+c)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// makeRoom moves our own processes out of dir, if no others are in it: whose
// they are is whose it is to move them.
func makeRoom(dir string) error {
	if len(words(filepath.Join(dir, "cgroup.procs"))) == 0 {
		return nil
	}
	leaf := filepath.Join(dir, leafOfOurs)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for range 10 { // new ones come from those not moved yet
		pids := words(filepath.Join(dir, "cgroup.procs"))
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if !oursToMove(pid) {
				_ = os.Remove(leaf) // unless some of ours are in it
				return fmt.Errorf("process %s of another program is in it", pid)
			}
		}
		for _, pid := range pids {
			if err := write(filepath.Join(leaf, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return errors.New("new processes come into it all the time")
}

// oursToMove says that the process runs the same program as we do.
func oursToMove(pid string) bool {
	ours, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	theirs, err := os.Stat("/proc/" + pid + "/exe")
	return err == nil && os.SameFile(ours, theirs)
}

// write writes to a file of the kernel's, which is there or not.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a group; 0 leaves one away.
type Limits struct {
	MemoryBytes int64
	Processes   int // and threads
	CPUs        int // processors' worth of time
	IOWeight    int // its share of a busy disk; others have 100
}

// Group is a group that was made.
type Group struct {
	dir string
	fd  *os.File
}

// Make makes the group anew, with its limits. One of the same name that was left
// goes first, with what still runs in it.
func (p Place) Make(name string, l Limits) (*Group, error) {
	g := &Group{dir: filepath.Join(p.dir, name)}
	fail := func(err error) (*Group, error) {
		return nil, errors.Join(fmt.Errorf("cannot make the control group %s: %w", g.dir, err), g.Remove())
	}
	if err := g.Remove(); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		err := os.Mkdir(g.dir, 0o755)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || try == 10 {
			return fail(err)
		}
		if err := p.make(); err != nil { // it went with the last group in it
			return fail(err)
		}
	}
	for _, s := range l.settings() {
		if err := write(filepath.Join(g.dir, s.file), s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fail(err)
		}
	}
	var err error
	if g.fd, err = os.OpenFile(g.dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fail(err)
	}
	return g, nil
}

type setting struct{ file, value string }

// settings are the files to write; those of a controller that is missing, or of
// a kernel that does not know them, are not there.
func (l Limits) settings() []setting {
	var s []setting
	if l.MemoryBytes > 0 {
		s = append(s, setting{"memory.max", strconv.FormatInt(l.MemoryBytes, 10)}, setting{"memory.oom.group", "1"})
	}
	if l.Processes > 0 {
		s = append(s, setting{"pids.max", strconv.Itoa(l.Processes)})
	}
	if l.CPUs > 0 {
		const period = 100_000 // microseconds
		s = append(s, setting{"cpu.max", fmt.Sprintf("%d %d", l.CPUs*period, period)})
	}
	if l.IOWeight > 0 {
		s = append(s, setting{"io.weight", fmt.Sprintf("default %d", l.IOWeight)}, setting{"io.bfq.weight", strconv.Itoa(l.IOWeight)})
	}
	return s
}

// Folder to start a process in the group with; it is valid until Remove.
func (g *Group) Folder() *os.File { return g.fd }

// OutOfMemory says that the kernel ended something in it for its memory.
func (g *Group) OutOfMemory() bool {
	b, err := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// removePatience is how long what is killed may take to be gone.
const removePatience = 5 * time.Second

// Remove ends what is in the group, and removes it; that it is not there is no
// error. It may be called again.
func (g *Group) Remove() error {
	if g.fd != nil {
		_ = g.fd.Close()
		g.fd = nil
	}
	for began := time.Now(); ; {
		err := unix.Rmdir(g.dir)
		switch {
		case err == nil:
			_ = unix.Rmdir(filepath.Dir(g.dir)) // with the last of them
			return nil
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Since(began) > removePatience:
			return fmt.Errorf("cannot remove the control group %s: %w", g.dir, err)
		}
		g.kill()
		time.Sleep(2 * time.Millisecond)
	}
}

// kill ends all in it: by one word to the kernel since Linux 5.14.
func (g *Group) kill() {
	if write(filepath.Join(g.dir, "cgroup.kill"), "1") == nil {
		return
	}
	for _, w := range words(filepath.Join(g.dir, "cgroup.procs")) {
		if pid, err := strconv.Atoi(w); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

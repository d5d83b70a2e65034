package firecracker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// burglary is what a VMM that was taken over tries: everything in it is another
// machine's or the host's.
type burglary struct {
	Files   []string // to be read and written
	Sockets []string // Unix sockets; @ is an abstract one
	TCP     string   // what listens on the host's loopback
	PID     int      // of another VMM
}

// loot is what came of it.
type loot struct {
	Got  []string // what succeeded, and must not
	Root []string // the names in its root folder
	Nets []string // its network devices
	Born int      // how many processes it could have
	UID  int
}

func (l *loot) try(what string, err error) {
	if err == nil {
		l.Got = append(l.Got, what)
	}
}

// everywhere is what is tried in the cell and outside.
func (b burglary) everywhere() (l loot) {
	l.UID = os.Getuid()
	for _, path := range b.Files {
		f, err := os.Open(path)
		l.try("read "+path, err)
		if err == nil {
			_ = f.Close()
		}
		f, err = os.OpenFile(path, os.O_WRONLY, 0)
		l.try("write to "+path, err)
		if err == nil {
			_ = f.Close()
		}
		l.try("remove "+path, os.Remove(path))
	}
	for _, path := range b.Sockets {
		c, err := net.DialTimeout("unix", path, time.Second)
		l.try("connect to "+path, err)
		if err == nil {
			_ = c.Close()
		}
	}
	l.try("kill another VMM", syscall.Kill(b.PID, 0))
	l.try("trace another VMM", syscall.PtraceAttach(b.PID))
	l.try("become root", syscall.Setresuid(0, 0, 0))
	l.try("mount", unix.Mount("x", "/run", "tmpfs", 0, ""))
	l.try("make a device", unix.Mknod("/run/sda", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))))
	l.try("change the root", unix.Chroot("/run"))
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	l.try("open a packet socket", err)
	if err == nil {
		_ = unix.Close(s)
	}
	return l
}

// inside is what is tried in the cell.
func (b burglary) inside() loot {
	l := b.everywhere()
	c, err := net.DialTimeout("tcp", b.TCP, time.Second)
	l.try("connect to the host's "+b.TCP, err)
	if err == nil {
		_ = c.Close()
	}
	for _, path := range []string{"/etc/passwd", "/proc/1/root", "/sys/fs/cgroup", "/dev/mem", "/dev/vda"} {
		_, err := os.Lstat(path)
		l.try("see "+path, err)
	}
	for _, path := range []string{"/vmm", "/kernel", "/new"} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		l.try("write to "+path, err)
		if err == nil {
			_ = f.Close()
		}
	}
	names, err := os.ReadDir("/")
	must(err)
	for _, n := range names {
		l.Root = append(l.Root, n.Name())
	}
	devices, err := net.Interfaces()
	must(err)
	for _, d := range devices {
		l.Nets = append(l.Nets, d.Name)
	}
	slices.Sort(l.Nets)
	// A folder of the host that somebody left open is a way out.
	for fd := range spareFiles {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			l.Got = append(l.Got, fmt.Sprintf("have folder %d:%d open as %d", st.Dev, st.Ino, fd))
		}
	}
	for range 200 {
		_, err := os.StartProcess("/vmm", []string{"sleeper"}, &os.ProcAttr{Env: []string{"GOMAXPROCS=1"}})
		if err != nil {
			break
		}
		l.Born++
	}
	return l
}

// beBurglar is the same identity outside the cell, as if that had a hole.
func beBurglar() {
	var b burglary
	must(json.NewDecoder(os.Stdin).Decode(&b))
	must(json.NewEncoder(os.Stdout).Encode(b.everywhere()))
	os.Exit(0)
}

// decodeLoot reads what a burglar said, the last line of its output.
func decodeLoot(said string) (l loot, err error) {
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, `{"Got"`) && strings.HasSuffix(line, "\n") {
			return l, json.Unmarshal([]byte(line), &l)
		}
	}
	return l, errors.New("nothing yet")
}

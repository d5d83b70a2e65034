package firecracker

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/cell"
)

// stub is a program that behaves like some Firecracker. This test binary is it,
// under another name: see TestMain.
type stub struct {
	Version string // what it calls itself
	API     string // the version that its API tells; Version if empty
	// Deaf: it never makes its socket. Mute: it never answers.
	Deaf, Mute bool
	// Ignores is the path of requests that are not answered.
	Ignores string
	// Says goes to its log, Cries to stderr, before anything else; then it exits
	// with Dies, unless that is negative.
	Says, Cries string
	Dies        int
	// Refuses is the path of a request that is answered with Fault.
	Refuses, Fault string
	// After the start: Console is printed, then it exits with Ends, unless that is
	// negative. Resets are the first connections to the guest that are closed.
	Console string
	Ends    int
	Resets  int32
	Floods  int // bytes of log, after the start
	// Breaks is what it tries after the start; what came of it is on the console.
	Breaks *burglary
	Takes  int // bytes of memory it takes after the start
	// Reads are files that it opens first of all, to die if it cannot.
	Reads []string
}

// sound does what it should and lives on.
func sound() stub { return stub{Version: "1.12.1", Dies: -1, Ends: -1} }

func TestMain(m *testing.M) {
	syscall.Umask(0o077) // as a keeper's
	switch {
	case len(os.Args) > 1 && os.Args[1] == cell.Command:
		if cell.Main() != nil {
			os.Exit(1)
		}
	case os.Args[0] == "keeper":
		beKeeper(os.Args[2:])
	case os.Args[0] == programName || strings.HasPrefix(filepath.Base(os.Args[0]), "stub-"):
		beStub()
	case len(os.Args) > 1 && os.Args[1] == "keeper":
		beKeeper(os.Args[2:])
	case os.Args[0] == "sleeper":
		time.Sleep(time.Hour)
	case os.Args[0] == "burglar":
		beBurglar()
	}
	os.Exit(m.Run())
}

// install gives the path of the program: ours, with the behaviour behind it.
func (s stub) install(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	program = binary.BigEndian.AppendUint32(append(program, b...), uint32(len(b)))
	path := filepath.Join(t.TempDir(), "stub-firecracker")
	// A child forked meanwhile would hold it open for writing, and it could not run.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// behaviour reads what install wrote.
func behaviour() (s stub) {
	path := os.Args[0]
	if path == programName {
		path = "/vmm" // in a cell of its own files
		if _, err := os.Stat(path); err != nil {
			path, err = os.Executable() // among the host's, as with -race: linked dynamically
			must(err)
		}
	}
	f, err := os.Open(path)
	must(err)
	defer f.Close()
	fi, err := f.Stat()
	must(err)
	var size [4]byte
	_, err = f.ReadAt(size[:], fi.Size()-4)
	must(err)
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err = f.ReadAt(b, fi.Size()-4-int64(len(b)))
	must(err)
	must(json.Unmarshal(b, &s))
	return s
}

// driver drives the stub.
func (s stub) driver(t *testing.T) *Driver {
	t.Helper()
	return driverOf(t, s.install(t))
}

func driverOf(t *testing.T, program string) *Driver {
	t.Helper()
	kvm := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(kvm, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return newDriver(program, self, kvm)
}

func newDriver(program, self, kvm string) *Driver {
	d := New(Options{Binary: program, Self: self, KVM: kvm}, slog.New(slog.DiscardHandler))
	d.spare = 1 << 50 // a Go program, which the stub is, reserves much, the more so with -race
	return d
}

// flag gives an argument's value.
func flag(name string) string {
	for i, a := range os.Args[:len(os.Args)-1] {
		if a == name {
			return os.Args[i+1]
		}
	}
	return ""
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "stub:", err)
		os.Exit(99)
	}
}

func beStub() {
	s := behaviour()
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Printf("Firecracker v%s\n\n", s.Version)
		os.Exit(0)
	}
	signal.Ignore(syscall.SIGTERM)
	log, err := os.OpenFile(flag("--log-path"), os.O_RDWR|syscall.O_NONBLOCK, 0)
	must(err)
	if s.Says != "" {
		fmt.Fprintf(log, "2026-11-27T21:00:00.000000000 [t:main] %s\n", s.Says)
	}
	fmt.Fprint(os.Stderr, s.Cries)
	for _, path := range s.Reads {
		f, err := os.Open(path)
		must(err)
		must(f.Close())
	}
	if s.Dies >= 0 {
		os.Exit(s.Dies)
	}
	if s.Deaf {
		time.Sleep(time.Hour)
	}
	l, err := net.Listen("unix", flag("--api-sock"))
	must(err)
	must(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, log) })))
}

func (s stub) answer(w http.ResponseWriter, r *http.Request, log *os.File) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case s.Mute, r.URL.Path == s.Ignores:
		<-r.Context().Done()
	case r.URL.Path == "/version":
		v := s.API
		if v == "" {
			v = s.Version
		}
		fmt.Fprintf(w, `{"firecracker_version":%q}`, v)
	case r.URL.Path == s.Refuses:
		w.WriteHeader(http.StatusBadRequest)
		must(json.NewEncoder(w).Encode(map[string]string{"fault_message": s.Fault}))
	case r.URL.Path == "/vsock":
		var v struct {
			Socket string `json:"uds_path"`
		}
		must(json.Unmarshal(body, &v))
		l, err := net.Listen("unix", v.Socket)
		must(err)
		go s.guest(l)
		w.WriteHeader(http.StatusNoContent)
	case string(body) == `{"action_type":"InstanceStart"}`:
		w.WriteHeader(http.StatusNoContent)
		must(http.NewResponseController(w).Flush()) // no guest is quicker than the answer
		go s.run(log)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// run is the guest's life.
func (s stub) run(log *os.File) {
	line := strings.Repeat("x", 1023) + "\n"
	for n := 0; n < s.Floods; n += len(line) {
		fmt.Fprint(log, line)
	}
	if s.Takes > 0 {
		taken := make([]byte, s.Takes)
		for i := 0; i < len(taken); i += 4096 {
			taken[i] = 1
		}
		fmt.Printf("took %d bytes\n", len(taken))
	}
	if s.Breaks != nil {
		must(json.NewEncoder(os.Stdout).Encode(s.Breaks.inside()))
	}
	time.Sleep(20 * time.Millisecond) // as long as it takes to be read
	fmt.Print(s.Console)
	if s.Ends >= 0 {
		time.Sleep(20 * time.Millisecond)
		os.Exit(s.Ends)
	}
}

// guest answers CONNECT and echoes.
func (s stub) guest(l net.Listener) {
	var n atomic.Int32
	for {
		c, err := l.Accept()
		must(err)
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			line, err := r.ReadString('\n')
			if err != nil || line != "CONNECT 1022\n" || n.Add(1) <= s.Resets {
				return
			}
			fmt.Fprint(c, "OK 1073741824\nfirst")
			_, _ = io.Copy(c, r)
		}()
	}
}

// beKeeper starts a machine, says its process and waits to be killed.
func beKeeper(args []string) {
	self, err := os.Executable()
	must(err)
	d := newDriver(args[0], self, args[1])
	d.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	m, err := d.Start(signalContext(), vmm.Spec{
		ID: "t", VCPUs: 1, MemoryBytes: 128 << 20, Accelerator: vmm.KVM, Kernel: args[1], RunDir: args[2],
		Network: &vmm.NIC{MAC: "52:54:00:00:00:01", MTU: 1500},
	}, io.Discard)
	must(err)
	fmt.Println(m.PID())
	time.Sleep(time.Hour)
}

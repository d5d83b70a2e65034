package guest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// Where serial numbers are not ours to give (Firecracker shows the file's own
// number), the order counts, whatever the disks call themselves.
func TestMatchDisksByOrder(t *testing.T) {
	t.Parallel()
	got := matchDisks([]blockDevice{{"vda", "64768:1"}, {"vdb", "64768:2"}}, []guestapi.Disk{{Role: "root", Index: 0}, {Role: "work", Index: 1}})
	if d := cmp.Diff(map[string]string{"root": "/dev/vda", "work": "/dev/vdb"}, got); d != "" {
		t.Error(d)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	first := hosts(nil, "web")
	if want := "127.0.0.1 localhost # banger\n::1 localhost ip6-localhost ip6-loopback # banger\n127.0.1.1 web # banger\n"; string(first) != want {
		t.Errorf("got %q", first)
	}
	if again := hosts(first, "web"); string(again) != string(first) {
		t.Errorf("not stable: %q", again)
	}
	own := "127.0.0.1 localhost\n10.0.0.1 db\n127.0.1.1 old # banger\n"
	if got, want := string(hosts([]byte(own), "new")), "127.0.0.1 localhost\n10.0.0.1 db\n127.0.1.1 new # banger\n"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	made := resolvConf(nil, []string{"192.168.127.1", "junk\nnameserver 6.6.6.6"})
	if !bytes.HasSuffix(made, []byte("\nnameserver 192.168.127.1\n")) {
		t.Errorf("got %q", made)
	}
	if again := resolvConf(made, []string{"1.1.1.1"}); !bytes.HasSuffix(again, []byte("\nnameserver 1.1.1.1\n")) {
		t.Errorf("ours is not rewritten: %q", again)
	}
	own := []byte("nameserver 9.9.9.9\n")
	if got := resolvConf(own, []string{"1.1.1.1"}); !bytes.Equal(got, own) {
		t.Errorf("the user's is lost: %q", got)
	}
}

func TestMatchDisks(t *testing.T) {
	t.Parallel()
	want := []guestapi.Disk{{Role: "root", Serial: "r", Index: 0}, {Role: "work", Serial: "w", Index: 1}}
	for name, tc := range map[string]struct {
		have []blockDevice
		want map[string]string
	}{
		"serials":    {[]blockDevice{{"vda", "w"}, {"vdb", "r"}}, map[string]string{"root": "/dev/vdb", "work": "/dev/vda"}},
		"no serials": {[]blockDevice{{"vda", ""}, {"vdb", ""}}, map[string]string{"root": "/dev/vda", "work": "/dev/vdb"}},
		"others":     {[]blockDevice{{"vda", "x"}, {"vdb", "y"}}, map[string]string{}},
		"missing":    {[]blockDevice{{"vda", "r"}}, map[string]string{"root": "/dev/vda"}},
	} {
		if diff := cmp.Diff(tc.want, matchDisks(tc.have, want)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		`{"protocol":1,"hostname":"a-b"}`:               true,
		`{"protocol":2}`:                                false,
		`{"protocol":1,"hostname":"a\nb"}`:              false,
		`{"protocol":1,"kernel_release":"../x"}`:        false,
		`{"protocol":1,"kernel_release":"6.1.0-cloud"}`: true,
		`{`: false,
	} {
		if _, err := parseConfig([]byte(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParentOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"12 (sh) S 7 12 12":      7,
		"12 (a) b) S 9 7":        9,
		"12 (kworker/0:1) I 2 0": 2,
		"12 (a ) S 3) R 44 1":    44,
		"":                       -1,
		"12 (x":                  -1,
		"12 (x) S":               -1,
	} {
		if got := parentOf([]byte(text)); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestAcknowledged(t *testing.T) {
	t.Parallel()
	reply := func(kind uint16, seq uint32, errno int32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, unix.SizeofNlMsghdr+4)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, 0)
		b = binary.NativeEndian.AppendUint32(b, seq)
		b = binary.NativeEndian.AppendUint32(b, 0)
		return binary.NativeEndian.AppendUint32(b, uint32(-errno))
	}
	stream := append(reply(unix.NLMSG_DONE, 5, 0), reply(unix.NLMSG_ERROR, 5, int32(unix.EEXIST))...)
	if done, err := acknowledged(stream, 5); !done || !errors.Is(err, unix.EEXIST) {
		t.Errorf("got %v, %v", done, err)
	}
	if done, err := acknowledged(reply(unix.NLMSG_ERROR, 5, 0), 5); !done || err != nil {
		t.Errorf("got %v, %v", done, err)
	}
	if done, _ := acknowledged(stream, 6); done {
		t.Error("another request's answer was taken")
	}
}

func TestSignalNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]unix.Signal{"INT": unix.SIGINT, "SIGTERM": unix.SIGTERM, "kill": unix.SIGKILL, "": 0, "9": 0, "NOPE": 0} {
		if got, _ := parseSignal(name); got != want {
			t.Errorf("%q: got %d", name, got)
		}
	}
	if got := signalName(unix.SIGSEGV); got != "SEGV" {
		t.Errorf("got %q", got)
	}
}

func FuzzBootFiles(f *testing.F) {
	f.Add([]byte(`{"protocol":1,"hostname":"a","disks":[{"role":"root"}]}`))
	f.Add([]byte("12 (sh) S 7 12 12"))
	f.Add([]byte("127.0.0.1 localhost\n# banger\n"))
	f.Add([]byte("MemTotal:  12 kB\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if cfg, err := parseConfig(data); err == nil && strings.ContainsAny(cfg.Hostname+cfg.KernelRelease, "/\n") {
			t.Errorf("accepted %+v", cfg)
		}
		parentOf(data)
		if n := parseKiB(data, "MemTotal:"); n < 0 {
			t.Errorf("%d bytes", n)
		}
		h := hosts(data, "web")
		if again := hosts(h, "web"); !bytes.Equal(h, again) {
			t.Errorf("hosts is not stable: %q then %q", h, again)
		}
		resolvConf(data, []string{string(data)})
		_, _ = acknowledged(data, 1)
		_, _ = parseResize(data)
		_, _ = parseSignal(string(data))
		_, _ = parseRequest(guestapi.ChannelRequest, data)
	})
}

// FuzzFollow plays a client that sends anything while a command runs.
func FuzzFollow(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x01x\x03\x00\x00\x00\x03XXX\x04\x00\x00\x00\x15{\"rows\":1,\"cols\":1}  \x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, w := net.Pipe()
		defer r.Close()
		defer w.Close()
		s := &session{agent: NewAgent(Options{spawn: &deaf{}}, slog.New(slog.DiscardHandler)), conn: w, r: bufio.NewReader(bytes.NewReader(data)), gone: make(chan struct{})}
		go func() { _, _ = io.Copy(io.Discard, r) }()
		std, err := newStdio(guestapi.ExecRequest{}, account{})
		if err != nil {
			t.Fatal(err)
		}
		s.out, s.in = std.out, newInput(std.in, false, s.credit)
		go s.in.write()
		s.follow()
		std.closeChild()
		s.in.close()
		std.close()
	})
}

// deaf starts nothing and heeds no signal.
type deaf struct{ hostSpawner }

func TestBulkListener(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	token := strings.Repeat("a1", 32)
	l := newBulkListener(inner, token)
	defer l.Close()
	dial := func(first string) net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(c, first); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, wrong := range []string{strings.Repeat("b", 64), "GET / HTTP/1.1\r\n" + strings.Repeat("x", 100)} {
		if n, err := dial(wrong).Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%.10q was admitted", wrong)
		}
	}
	dial("only a part")
	dial(token + "hello")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

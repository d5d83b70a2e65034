package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const patience = 30 * time.Second

// guestStack is a guest: the same kind of stack at the other end of the wire.
func guestStack(t *testing.T, u User, socket string) *stack.Stack {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := parseMAC(u.GuestMAC)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{mtu: uint32(u.MTU), mac: tcpip.LinkAddress(mac), gateway: u.Guest.As4()}
	self := u
	self.Gateway = u.Guest
	s, err := newStack(self, w)
	if err != nil {
		t.Fatal(err)
	}
	s.SetPromiscuousMode(nic, false)
	s.SetSpoofing(nic, false)
	s.AddRoute(tcpip.Route{Destination: mustSubnet(t), Gateway: tcpip.AddrFrom4(u.Gateway.As4()), NIC: nic})
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.serve(newStream(conn))
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		s.Destroy()
	})
	return s
}

func mustSubnet(t *testing.T) tcpip.Subnet {
	s, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newNetwork starts a network and a guest in it.
func newNetwork(t *testing.T, change func(*User)) (*Network, *stack.Stack) {
	t.Helper()
	dir, err := os.MkdirTemp("", "banger-n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u := DefaultUser()
	if change != nil {
		change(&u)
	}
	socket := filepath.Join(dir, "net.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	n, err := u.Start(t.Context(), l, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, guestStack(t, u, socket)
}

func dialFrom(ctx context.Context, guest *stack.Stack, to string) (net.Conn, error) {
	a := netip.MustParseAddrPort(to)
	return gonet.DialContextTCP(ctx, guest, tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}, ipv4.ProtocolNumber)
}

// hostAddress is an address of this host that is not its loopback.
func hostAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() {
			return ip.IP.String()
		}
	}
	t.Skip("this host has no address but its loopback")
	return ""
}

// echo is a service of the host.
func echo(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestTCP(t *testing.T) {
	t.Parallel()
	host := hostAddress(t)
	port := echo(t, host+":0")
	_, guest := newNetwork(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := dialFrom(ctx, guest, host+":"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	data := bytes.Repeat([]byte("0123456789abcdef"), 256<<10) // 4 MiB
	go func() {
		c.Write(data)
		c.(*gonet.TCPConn).CloseWrite() // the echo ends after everything came back
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
	}
}

// Nothing on the host's loopback can be reached, by any address.
func TestLoopbackIsClosed(t *testing.T) {
	t.Parallel()
	port := echo(t, "127.0.0.1:0") // 0.0.0.0 would be open to the world anyway
	_, guest := newNetwork(t, nil)
	for _, address := range []string{"127.0.0.1", "127.1.2.3", "0.0.0.0", "0.1.2.3", "192.168.127.1", "169.254.169.254", "224.0.0.1", "240.0.0.1"} {
		t.Run(address, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if c, err := dialFrom(ctx, guest, address+":"+port); err == nil {
				c.Close()
				t.Error("reached")
			}
		})
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	n := &Network{user: DefaultUser(), forbidden: forbidden()}
	for address, want := range map[string]bool{
		"127.0.0.1": false, "127.1.2.3": false, "127.255.255.254": false, "0.0.0.0": false, "0.1.2.3": false, "169.254.169.254": false, "224.0.0.251": false, "255.255.255.255": false,
		"192.168.127.1": false, "192.168.127.77": false, "::1": false, "::ffff:127.0.0.1": false,
		"192.168.126.1": true, "10.0.0.1": true, "8.8.8.8": true,
	} {
		if got := n.allowed(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	// What the loopback device has is closed by that alone.
	n.forbidden = nil
	if n.allowed(netip.MustParseAddr("127.0.0.1")) {
		t.Error("an address of the loopback device is open")
	}
}

func TestUDPAndDNS(t *testing.T) {
	t.Parallel()
	host := hostAddress(t)
	server, err := net.ListenPacket("udp4", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 2048)
		for {
			k, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(append([]byte("you said "), b[:k]...), from)
		}
	}()
	nowhere := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(nowhere, []byte("nameserver 127.0.0.1\n"), 0o600); err != nil { // nobody there, as a rule
		t.Fatal(err)
	}
	_, guest := newNetwork(t, func(u *User) { u.ResolvConf = filepath.Join(filepath.Dir(nowhere), "missing") })
	talk := func(to string, text []byte) []byte {
		t.Helper()
		a := netip.MustParseAddrPort(to)
		c, err := gonet.DialUDP(guest, nil, &tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b := make([]byte, 2048)
		for deadline := time.Now().Add(patience); ; { // packets may be lost
			c.Write(text)
			c.SetReadDeadline(time.Now().Add(time.Second))
			k, err := c.Read(b)
			if err == nil {
				return b[:k]
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not answer: %v", to, err)
			}
		}
	}
	_, port, _ := net.SplitHostPort(server.LocalAddr().String())
	if got := string(talk(host+":"+port, []byte("hi"))); got != "you said hi" {
		t.Errorf("got %q", got)
	}
	query := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01")
	got := talk("192.168.127.1:53", query)
	want := []byte("\x12\x34\x81\x82\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01")
	if !bytes.Equal(got, want) {
		t.Errorf("with no resolver the answer is %x", got)
	}
}

func TestDialGuest(t *testing.T) {
	t.Parallel()
	n, guest := newNetwork(t, nil)
	l, err := gonet.ListenTCP(guest, tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(n.user.Guest.As4()), Port: 1022}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := n.DialGuest(ctx, 1022)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c, err := n.DialGuest(ctx, 1023); err == nil {
		c.Close()
		t.Error("a port nobody listens on was reached")
	}
}

func TestUserIsChecked(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*User){
		"subnet":  func(u *User) { u.Subnet = netip.Prefix{} },
		"gateway": func(u *User) { u.Gateway = netip.MustParseAddr("10.0.0.1") },
		"same":    func(u *User) { u.Guest = u.Gateway },
		"MTU":     func(u *User) { u.MTU = 100000 },
		"slow":    func(u *User) { u.BytesPerSecond = minRate - 1 },
		"MAC":     func(u *User) { u.GuestMAC = "ff:ff:ff:ff:ff:ff" },
	} {
		u := DefaultUser()
		change(&u)
		if _, err := u.Start(t.Context(), nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	t.Parallel()
	in := "# c\nsearch x\nnameserver 10.0.0.1\nnameserver  fe80::1%eth0 \nnameserver bad\nnameserver\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
	if got := fmt.Sprint(parseResolvConf(strings.NewReader(in))); got != "[10.0.0.1 fe80::1%eth0 10.0.0.2]" {
		t.Errorf("got %s", got)
	}
}

// frame gives b its length.
func frame(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// Whatever the guest sends: no panic, no frame longer than the device's.
func FuzzWire(f *testing.F) {
	gateway := []byte{0x52, 0x54, 0, 0xba, 0, 1}
	guest := []byte{0x52, 0x54, 0, 0xba, 0, 2}
	head := append(append([]byte{}, gateway...), guest...)
	f.Add(frame(nil))
	f.Add(frame([]byte{1, 2, 3}))
	f.Add(frame(append(head, 8, 0)))
	f.Add(frame(append(append(head, 8, 6), make([]byte, 28)...)))
	f.Add(frame(append(append(head, 8, 0), "\x45\x00\x00\x28\x00\x00\x00\x00\x40\x06\x00\x00\xc0\xa8\x7f\x02\x7f\x00\x00\x01\x00\x50\x00\x50\x00\x00\x00\x00\x00\x00\x00\x00\x50\x02\x00\x00\x00\x00\x00\x00"...)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	u := DefaultUser()
	w := &wire{mtu: uint32(u.MTU), mac: tcpip.LinkAddress(gateway), gateway: u.Gateway.As4()}
	s, err := newStack(u, w)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Destroy)
	f.Fuzz(func(_ *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			v, err := readFrame(r, u.MTU+ethernetHead)
			if err != nil {
				return
			}
			if v != nil {
				w.receive(v)
			}
		}
	})
}

func FuzzServerFailure(f *testing.F) {
	f.Add([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fa"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < dnsHead {
			return
		}
		if a := serverFailure(b); len(a) < dnsHead || len(a) > len(b) || !bytes.Equal(a[:2], b[:2]) {
			t.Errorf("answer %x", a)
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 1.2.3.4\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got := parseResolvConf(strings.NewReader(s)); len(got) > maxResolvers {
			t.Errorf("%d servers", len(got))
		}
	})
}

package tests

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// nonLoopback is an address of this host that the guest may reach; the service
// behind it is bound to loopback only, so it must not answer.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			all = append(all, n.IP.String())
		}
	}
	return all
}

func TestNoLoopbackServiceOfTheHostIsReachable(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "SECRET") })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	h.create("n")
	gateway := h.sh("n", "ip -4 route show default | awk '{print $3}'")
	for _, addr := range append(hostAddresses(t), gateway, "0.0.0.0", "127.0.0.1", "169.254.169.254", "192.168.127.254") {
		out := h.banger("vm", "exec", "n", "--", "curl", "-s", "-m", "3", "--noproxy", "*", fmt.Sprintf("http://%s:%d/", addr, port)).stdout
		if strings.Contains(out, "SECRET") {
			t.Errorf("the guest reached the host's loopback service by %s", addr)
		}
	}
	// Frames forged for 127.0.0.1 must not either: route it out of eth0.
	h.sh("n", "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1 2>/dev/null; ip addr del 127.0.0.1/8 dev lo; ip route del table local 127.0.0.0/8 2>/dev/null; ip route add 127.0.0.0/8 via "+gateway+" dev eth0 2>/dev/null; true")
	out := h.banger("vm", "exec", "n", "--", "curl", "-s", "-m", "3", "--noproxy", "*", fmt.Sprintf("http://127.0.0.1:%d/", port)).stdout
	if strings.Contains(out, "SECRET") {
		t.Error("the guest reached the host's loopback by a forged route")
	}
}

func TestGuestReachesTheWorldAsTheHostDoes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("n", "--memory", "768M")
	// The package archive is the one thing a machine that built the image can surely reach.
	r := h.banger("vm", "exec", "n", "--", "apt-get", "update")
	if r.code != 0 || strings.Contains(r.stdout+r.stderr, "Err:") {
		t.Errorf("%v", r)
	}
	if got := h.sh("n", "cat /sys/class/net/eth0/mtu"); got != "65520" {
		t.Errorf("mtu %s", got)
	}
}

func TestNetworkNone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.create("n", "--network", "none")
	if got := h.sh("n", "ls /sys/class/net; ip -o addr show lo | grep -c 127.0.0.1"); got != "lo\n1" {
		t.Errorf("expected loopback only: %q", got)
	}
	data := strings.Repeat("x", 3<<20)
	if r := h.bangerIn(strings.NewReader(data), "vm", "exec", "n", "--", "cat"); r.stdout != data {
		t.Errorf("bytes were lost without a network: %d of %d", len(r.stdout), len(data))
	}
}

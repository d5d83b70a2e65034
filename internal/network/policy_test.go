package network

import (
	"net/netip"
	"testing"
)

func TestForbidden(t *testing.T) {
	t.Parallel()
	n := &Network{user: DefaultUser(), forbidden: forbidden()}
	for address, want := range map[string]bool{
		"1.1.1.1": true, "10.0.0.1": true, "192.168.126.2": true, "100.100.100.199": true,
		"0.0.0.0": false, "0.1.2.3": false, "127.0.0.1": false, "127.255.255.254": false,
		"169.254.169.254": false, "100.100.100.200": false, "168.63.129.16": false,
		"224.0.0.251": false, "239.1.1.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"192.168.127.1": false, "192.168.127.2": false, "192.168.127.255": false,
		"::1": false, "::ffff:127.0.0.1": false, "::ffff:1.1.1.1": false, "2001:db8::1": false,
	} {
		if got := n.allowed(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
	if n.allowed(netip.Addr{}) {
		t.Error("no address is allowed")
	}
}
